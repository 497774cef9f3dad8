"""Export formats, one module each. Every module has

FILE                      name of the file or folder that holds the weights
INPUT                     Input: the images that the export expects
check_supported(subject)  raises Fault if the format does not support this subject
write(subject, folder)    writes the export into an empty folder
read(subject, folder)     returns {reader: outputs for check.images}; a reader is "jax" or a library
usage(subject, folder)    returns Python code that loads the export
"""

import importlib
from typing import Any, NamedTuple


class Input(NamedTuple):
    """Images that an export expects."""

    layout: str  # "NHWC" or "NCHW"
    standardised: bool = False  # True: the consumer standardises; False: images are in [0, 1]


def get(name: str) -> Any:
    """Returns the module of the format `name`, one of `ssl_jax.export.FORMATS`."""
    return importlib.import_module(f"{__name__}.{name}")
