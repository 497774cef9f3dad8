"""The audio modality: random windows of mono recordings, and whole recordings for evaluation.

`fields` describes the config, `decode` reads files, `views` (TensorFlow) makes random windows,
`mel` (JAX) computes spectrograms for hand-made features and pictures.
"""

from typing import Any

from ssl_jax.inputs import Input
from ssl_jax.inputs.audio.fields import (
    DATA_FIELDS,
    ENCODER_DATA,
    FIELDS,
    default_fields,
    light_fields,
    problems,
)

__all__ = [
    "DATA_FIELDS",
    "ENCODER_DATA",
    "FIELDS",
    "default_fields",
    "light_fields",
    "make_input",
    "problems",
]


def make_input(**sections: Any) -> Input:
    """Makes the input of sound; see `make.make_input`."""
    from ssl_jax.inputs.audio import make  # here: configs are checked before JAX is imported

    return make.make_input(**sections)
