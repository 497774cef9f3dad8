"""The text modality: passages of words, subsampled, with a random window at every word."""

from typing import Any

from ssl_jax.inputs import Input
from ssl_jax.inputs.text.fields import DATA_FIELDS, FIELDS, default_fields, problems

__all__ = ["DATA_FIELDS", "FIELDS", "default_fields", "make_input", "problems", "typical_facts"]


def make_input(**sections: Any) -> Input:
    """Makes the input of text; see `make.make_input`."""
    from ssl_jax.inputs.text import make  # here: configs are checked before NumPy is imported

    return make.make_input(**sections)


def typical_facts(data: Any) -> dict[str, Any]:
    """Returns facts in place of those of data that are not read; see `make.typical_facts`."""
    from ssl_jax.inputs.text import make

    return make.typical_facts(data)
