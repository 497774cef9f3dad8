"""Objects outside the package that a config names as "module:attribute".

A method, an encoder, a data source and a modality may live in a module of the user. The name alone
must not run code: the config of a downloaded run could name any module. A module is imported only
if the user allowed it, by a config that the user wrote or by the variable SSL_JAX_MODULES.
"""

import importlib
import os
from typing import Any

from ssl_jax.errors import BAD_CONFIG, Fault

# Comma-separated module names. Child processes inherit an environment variable.
VARIABLE = "SSL_JAX_MODULES"
PREFIXES = ("tfds", "captions")  # of names of the package's own sources


def is_external(name: str) -> bool:
    """Returns True for "module:attribute", False for names of objects in the package."""
    module, colon, attribute = name.partition(":")
    dotted = all(part.isidentifier() for part in module.split("."))
    outside = bool(colon) and module not in PREFIXES
    return outside and dotted and attribute.isidentifier()


def allow(name: str) -> None:
    """Allows the module of "module:attribute" to be imported, here and in child processes."""
    module = name.partition(":")[0]
    if module not in _allowed():
        os.environ[VARIABLE] = ",".join([*_allowed(), module])


def check_allowed(name: str) -> None:
    """Raises Fault if the module `name` is not allowed."""
    if name not in _allowed():
        raise Fault(
            f"this config names the module {name!r}, which is not part of ssl_jax. If you trust "
            f"its code, set the environment variable {VARIABLE}={name}",
            BAD_CONFIG,
        )


def load(name: str) -> Any:
    """Returns the object called "module:attribute".

    Raises:
      Fault: the module is not allowed, cannot be imported, or lacks the attribute.
    """
    module, _, attribute = name.partition(":")
    loaded = load_module(module)
    if not hasattr(loaded, attribute):
        raise Fault(f"{name}: the module {module!r} has no {attribute!r}", BAD_CONFIG)
    return getattr(loaded, attribute)


def load_module(name: str) -> Any:
    """Imports an allowed module; raises Fault if it is not allowed or cannot be imported."""
    check_allowed(name)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = f"cannot import the module {name!r}: {error}. Install it, or add its folder to "
        raise Fault(f"{message}PYTHONPATH", BAD_CONFIG) from error


def _allowed() -> list[str]:
    return [name for name in os.environ.get(VARIABLE, "").split(",") if name]
