"""One module a format. Each has

FILE        name of what holds the weights, in the format's folder
INPUT       Input: how its consumer gives images
refuse(subject)         raises Fault where the format cannot hold this subject
write(subject, folder)  writes into an empty folder
read(subject, folder)   {"jax" or the library that read it: outputs of check.images}
usage(subject, folder)  lines of Python that load it, for people
"""

import importlib
from typing import Any, NamedTuple


class Input(NamedTuple):
    """How images are given to what was exported."""

    layout: str  # "NHWC" or "NCHW"
    standardised: bool = False  # the consumer subtracts the mean; otherwise images are in [0, 1]


def get(name: str) -> Any:
    """The module of the format called `name`, one of `ssl_jax.export.FORMATS`."""
    return importlib.import_module(f"{__name__}.{name}")
