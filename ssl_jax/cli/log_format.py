"""Shows our warnings without absl's prefix, and hides what libraries say about themselves."""

import functools
import importlib.util
import logging
import os

from absl import logging as absl_logging

# Libraries whose warnings are about their own options and file formats. JAX is not among them: it
# warns of an accelerator that it cannot use.
LIBRARIES = ("orbax", "clu", "tensorflow", "tensorflow_datasets")
# Levels below which C++ code prints nothing: 2 leaves errors, 3 leaves fatal errors. XLA and
# TensorFlow report failures of GPUs as errors. libtpu prints errors on every machine without a TPU.
LEVELS = {"TF_CPP_MIN_LOG_LEVEL": "2", "TPU_MIN_LOG_LEVEL": "3", "TPU_STDERR_LOG_LEVEL": "3"}


def quieten_libraries() -> None:
    """Sets the format of log messages, and the levels of libraries that are not imported yet.

    Variables of the environment override the levels.
    """
    for name, level in LEVELS.items():
        os.environ.setdefault(name, level)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = absl_logging.get_absl_handler().python_handler
    handler.setFormatter(Formatter())
    handler.addFilter(is_shown)


def is_shown(record: logging.LogRecord) -> bool:
    """Returns False for warnings of libraries; --verbosity=0 or more shows them, too."""
    if absl_logging.get_verbosity() > absl_logging.WARNING or record.levelno >= logging.ERROR:
        return True
    return not record.pathname.startswith(_folders())


@functools.cache
def _folders() -> tuple[str, ...]:
    """Returns the folders of the libraries that are installed, without importing them."""
    specs = filter(None, map(importlib.util.find_spec, LIBRARIES))
    return tuple(f"{path}{os.sep}" for s in specs for path in s.submodule_search_locations or ())


class Formatter(logging.Formatter):
    """Formats a record as "warning: message", like the warnings that are printed."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the level in lower case, and the message."""
        return f"{record.levelname.lower()}: {super().format(record)}"
