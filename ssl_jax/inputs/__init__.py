"""Inputs describe an example. Each modality has a package or module; images: `inputs.image`.

An `Input` is the only description of an example. The pipeline, the training step, the plan,
evaluation and reports read its fields, so none of them contains code for images. Importing this
package imports neither JAX nor TensorFlow.
"""

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ssl_jax import plugins

Arrays = dict[str, Any]  # name -> array of NumPy, TensorFlow or JAX
Tree = Any
# Modality of each source of the package: the part of the source's name before ":".
MODALITIES = {
    **{"digits": "image", "folder": "image", "tfds": "image"},
    **{"audio": "audio", "captions": "pairs", "pairs": "pairs", "text": "text"},
}
FOLDERS = ("audio", "folder", "pairs", "text")


class Input(NamedTuple):
    """Functions and shapes that take an example of one modality from its record to the method.

    Shapes are those of one example, without the batch axis. `shipped`, `seen` and `evaluated` hold
    `jax.ShapeDtypeStruct`s.
    """

    record: dict[str, tuple[Any, tuple[int | None, ...]]]
    """Arrays of a record by name: (dtype, shape), None for an axis of any length. A source must
    load records of this form."""

    host: Callable[[Arrays, Any, Any], Arrays]
    """(record, epoch int64 [], index int64 []) -> arrays of `shipped`, by TensorFlow operations.
    Every random decision is a pure function of (seed, epoch, index, view)."""

    device: Callable[[Arrays], Arrays]
    """A batch of `shipped` arrays -> a batch of `seen` arrays, inside the jitted step. Works per
    example: row i of the result depends on row i alone. Other keys pass through."""

    shipped: dict[str, Any]
    """The example as it arrives on the device."""

    seen: dict[str, Any]
    """The example as `Method.encode` sees it. "views" [v, ...] holds v random views."""

    evaluate: Callable[[Arrays], Tree]
    """Record -> evaluation arrays, deterministic, by TensorFlow operations."""

    evaluated: Tree
    """The evaluation arrays of one example: a single array, or a tree of arrays."""

    to_model: Callable[[Tree], Tree]
    """A batch of `evaluated` arrays -> the argument `x` of `Method.features`, inside jit."""

    picture: Callable[[Any], Any] | None = None
    """Evaluation arrays of one example -> uint8 [h, w, 3] for reports; None draws nothing."""

    preview: Callable[[Arrays, Arrays], Arrays] | None = None
    """(record, `seen` arrays of one example) -> pictures for `preview`: "original" [h, w, 3],
    "views" [v, s, s, 3] and optionally "local_views"; None draws nothing."""

    symbols: Mapping[str, int] = MappingProxyType({})
    """Number of different values of each array of `seen` that holds symbols, by name: tokens of a
    vocabulary of 4,096 are whole numbers in [0, 4096), or -1 where there is none."""

    parts: Mapping[str, Callable[[Tree], Tree]] = MappingProxyType({})
    """For examples with several parts, such as "image" and "text": name of the part -> function
    from a batch of `evaluated` arrays to the argument of `Method.towers[name]`, inside jit."""

    pair: Callable[[], "Input"] | None = None
    """Makes the input whose "views" are two random views, for alignment and uniformity."""

    light: Callable[[], "Input"] | None = None
    """Makes the input whose "views" hold one lightly augmented view, for linear evaluation by SGD
    and for fine-tuning."""

    baselines: Mapping[str, Callable[[Tree], Any]] = MappingProxyType({})
    """Hand-made features by name, inside jit: `x` as `to_model` or a view returns it -> [b, f].
    Evaluation shows them in place of the evaluation arrays themselves."""

    frame_baselines: Mapping[str, Callable[[Tree], tuple[Any, Any]]] = MappingProxyType({})
    """Hand-made features of frames: x -> (float32 [b, t, f], bool [b, t] of valid frames)."""

    noun: str = "example"
    """Word for one example in protocols and messages: "image" gives "500 test images"."""

    raw_name: str = "raw input"
    """Name of the baseline that uses the evaluation arrays themselves as features; it starts with
    "raw"."""

    description: str = ""
    """Description of the evaluation arrays for protocols, such as "224 px, central 0.875"."""


def is_folder(source: str) -> bool:
    """Tells whether a source of the package reads the user's files below `data.dir`."""
    return source.removeprefix("captions:") in FOLDERS


def is_of_images(source: str) -> bool:
    """Tells whether a source is one of the package that reads images."""
    name, colon, _ = source.partition(":")
    return MODALITIES.get(name) == "image" and bool(colon) == (name == "tfds")


def modality(source: str) -> Any:
    """Returns the module of a data source's modality.

    The module has `default_fields() -> dict` (the defaults of `config.augment`),
    `problems(augment) -> list[str]` (one sentence per bad value) and
    `make_input(*, augment, data, evaluation, seed) -> Input` (the config's sections as dicts). It
    may also have `FIELDS`, a table of `ssl_jax.field.Field` that describes the fields of `augment`;
    `DATA_FIELDS`, a table of the fields that it adds to `config.data`, which are options of its
    sources; `ENCODER_DATA`, names of those fields that an encoder depends on;
    `light_fields(augment) -> dict`, the fields of `augment` for fine-tuning; and
    `typical_facts(data) -> dict`, which plans use in place of `Source.facts`.

    Args:
      source: `config.data.source`: a source of the package, or "module:function" of another
        module. The attribute MODALITY of that module names its modality: one of the package
        ("image") or a module. Without the attribute, the module itself is the modality.

    Raises:
      Fault: the module is not allowed or cannot be imported.
    """
    if plugins.is_external(source):
        name = source.partition(":")[0]
        chosen = getattr(plugins.load_module(name), "MODALITY", name)
        if chosen not in MODALITIES.values():
            plugins.allow(chosen)  # the allowed module vouches for it
    else:
        # An unknown source is reported by the checks of the config.
        chosen = MODALITIES.get(source.partition(":")[0], "image")
    if chosen in MODALITIES.values():
        return importlib.import_module(f"{__name__}.{chosen}")
    return plugins.load_module(chosen)
