"""The modality of pairs of an image and a caption.

The image is that of `inputs.image`: the same views, decoder and evaluation array. The caption is a
sequence of tokens, which the source has made by `tokenizer`.
"""

from typing import Any

from ssl_jax.inputs import Input
from ssl_jax.inputs.pairs.fields import (
    DATA_FIELDS,
    FIELDS,
    default_fields,
    light_fields,
    problems,
)

__all__ = ["DATA_FIELDS", "FIELDS", "default_fields", "light_fields", "make_input", "problems"]


def make_input(**sections: Any) -> Input:
    """Makes the input of pairs; see `make.make_input`."""
    from ssl_jax.inputs.pairs import make  # here: configs are checked before NumPy is imported

    return make.make_input(**sections)
