"""Checks the feature classes that a prepared dataset names, before TFDS imports their modules."""

import json
from collections.abc import Iterator
from typing import Any

from ssl_jax.errors import BAD_DATA, Fault, printable

# Protobuf's JSON accepts both spellings of the field; TFDS before 4.5 wrote "type".
_NAME_KEYS = ("pythonClassName", "python_class_name", "type")


def check(folder: Any) -> None:
    """Checks that every feature of a dataset is a class of `tfds.features`.

    TFDS imports the module of each class that `features.json` names. A downloaded dataset could
    name any module, and opening it would run that module.

    Args:
      folder: folder of the prepared dataset, as a path that has `/` and `read_text`.

    Raises:
      Fault: a feature has another class (65).
      ValueError, OSError, RecursionError: the file cannot be read as JSON.
    """
    path = folder / "features.json"
    known = _known_classes()
    for name in _class_names(json.loads(path.read_text())):
        if name not in known:
            raise Fault(
                f"{printable(str(path))} names the class {name!r}, which is not a feature of "
                "TensorFlow Datasets. Its code is not imported. Prepare the dataset with the "
                "classes of tfds.features",
                BAD_DATA,
            )


def _known_classes() -> set[str]:
    """Returns the names under which `features.json` may store the classes of `tfds.features`."""
    import tensorflow_datasets as tfds

    exported = [getattr(tfds.features, name) for name in dir(tfds.features)]
    base = tfds.features.FeatureConnector
    classes: list[Any] = [c for c in exported if isinstance(c, type) and issubclass(c, base)]
    names = {f"{c.__module__}.{c.__name__}" for c in classes}
    return names.union(*(c.ALIASES for c in classes))


def _class_names(value: Any) -> Iterator[str]:
    """Yields the name of every class in decoded JSON, also in texts that hold JSON themselves."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _NAME_KEYS and isinstance(item, str):
                yield item
            else:
                yield from _class_names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _class_names(item)
    elif isinstance(value, str):
        try:
            inner = json.loads(value)
        except ValueError:
            return
        yield from _class_names(inner)
