"""The image modality: random views from one specification, one sampler and two executors.

`views` is the specification, and `recipes` holds published recipes; both are plain data. `host`
(TensorFlow) draws every random decision and crops. Then either `host` or `device` (JAX) applies the
colour operations; both give equal pixels. `decode` turns files into pixels.
"""

from typing import Any

from ssl_jax.inputs import Input
from ssl_jax.inputs.image.fields import (
    DATA_FIELDS,
    FIELDS,
    default_fields,
    light_fields,
    problems,
)

__all__ = ["DATA_FIELDS", "FIELDS", "default_fields", "light_fields", "make_input", "problems"]


def make_input(**sections: Any) -> Input:
    """Makes the input of images; see `make.make_input`."""
    from ssl_jax.inputs.image import make  # here: configs are checked before NumPy is imported

    return make.make_input(**sections)
