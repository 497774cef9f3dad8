"""Interface of self-supervised methods.

A method is one module in this package. Its single public symbol is
`make(encoder, run, **hyperparameters) -> Method`. The training loop never branches on the method.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from ssl_jax import plugins
from ssl_jax.optim import Turns

Tree = Any
Batch = dict[str, jax.Array]


class Run(NamedTuple):
    """Facts about the run that a method may use."""

    seen: dict[str, jax.ShapeDtypeStruct]
    """Arrays of one example as `encode` sees them, without the batch axis: `Input.seen`. Most
    inputs have "views" [v, ...], and images with local crops also "local_views"."""

    total_steps: int
    """Length of the run, in steps."""

    batch_size: int
    """Examples in the global batch."""

    num_examples: int
    """Examples in the data set; `batch["index"]` is in [0, num_examples)."""

    bn_group: int = 0
    """Rows of full-size views that share BatchNorm statistics; 0 means the whole global batch."""

    symbols: Mapping[str, int] = MappingProxyType({})
    """Number of different values of each array of symbols in `seen`: `Input.symbols`."""

    chunk: int = 0
    """Examples that stay together when the batch is divided: one device's part of a micro-batch.
    0 means that there are no micro-batches, so the whole batch stays together.
    """

    facts: Mapping[str, Any] = MappingProxyType({})
    """Facts about the training data, NumPy arrays by name: `Source.facts`. Empty for images."""


def merge_statistics(params: Tree, extra: Tree, stats: Tree, step: jax.Array) -> Tree:
    """Default `after_update`: stores the statistics that `encode` returned."""
    del params, step
    return {**extra, "batch_stats": stats}


def online_modules(params: Tree, extra: Tree) -> tuple[Tree, Tree]:
    """Default `modules`: the trained parameters, and the statistics of the online network."""
    stats = extra.get("batch_stats", {})
    return params, stats.get("online", stats)


class Picture(NamedTuple):
    """A figure that shows what a trained method does with images, or generates."""

    name: str
    """Name of the figure's file, without ".png". Reports show the figures in the method's order."""

    title: str
    """Heading in the report."""

    caption: str
    """Sentences below the figure: what it shows, and its limits."""

    draw: Callable[[Tree, Tree, jax.Array, jax.Array], jax.Array]
    """(params, extra, x, key) -> images [rows, columns, h, w, c] in [0, 1], c 1 or 3. x holds a few
    evaluation images as in `Method.features`."""

    columns: tuple[str, ...] = ()
    """Titles of the columns; () for none."""


class Method(NamedTuple):
    """A self-supervised method: pure functions and data.

    Shape letters: b examples, v views, f features. `extra` is opaque to the loop: batch statistics,
    momentum encoder, queue, memory bank. A batch holds the arrays of `Run.seen`, for images
    "views" [b, v, h, w, c] in [0, 1], and "index" int32 [b], the index of each example in the data
    set.
    """

    init: Callable[[jax.Array, Batch], tuple[Tree, Tree]]
    """(key, batch) -> (params, extra). Only the shapes of the batch matter. Must run under
    `jax.eval_shape` and under a sharded jit.
    """

    encode: Callable[[Tree, Tree, Batch, jax.Array], tuple[dict[str, jax.Array], Tree]]
    """(params, extra, batch, key) -> (outputs, stats), in training mode. Row i of every output
    depends only on example i and on its normalisation group, so the batch may be encoded in chunks.
    All chunks receive the same key: random numbers for an example are drawn with `fold_in(key,
    index)`. The output "features" [b, v, f] feeds the online probe and the collapse signals.
    """

    objective: Callable[[Tree, Tree, dict[str, jax.Array], jax.Array, jax.Array], tuple]
    """(params, extra, outputs, key, step) -> (loss, (extra, metrics)). The only function in which
    examples meet. It never sees labels.
    """

    features: Callable[[Tree, Tree, jax.Array], jax.Array]
    """(params, extra, x) -> [b, f] float32, for inference. x is the input's evaluation array as
    `Input.to_model` returns it: for images [b, h, w, c] in [0, 1]."""

    after_update: Callable[[Tree, Tree, Tree, jax.Array], Tree] = merge_statistics
    """(params, extra, stats, step) -> extra, called after the optimizer step."""

    layout: Tree = "replicated"
    """Prefix tree of `extra` that says how each part is laid out over devices: "replicated", "rows"
    (sharded on the first axis) or "parameters" (like the parameters, which `parallel.fsdp` shards).
    """

    params_layout: Tree = "parameters"
    """Prefix tree of `params`: "parameters" (every device gathers them for a step) or "table" (they
    stay divided by rows over the devices of `parallel.fsdp`; the method reads rows by
    `parallel.table`)."""

    vectors: Callable[[Tree, Tree], jax.Array] | None = None
    """(params, extra) -> float32 [V, d], a vector for each of `Run.facts["words"]`. Only for
    methods that embed words."""

    evals: tuple[str, ...] = ("knn", "linear")
    """Evaluation protocols that are meaningful for the method."""

    pictures: tuple[Picture, ...] = ()
    """Figures that are drawn at the end of a run, for methods of images."""

    modules: Callable[[Tree, Tree], tuple[Tree, Tree]] = online_modules
    """(params, extra) -> (params, batch_stats), dicts by module name. `features` is the output of
    the module "encoder". Fine-tuning starts from these modules.
    """

    logits: Callable[[Tree, Tree, jax.Array], jax.Array] | None = None
    """(params, extra, x) -> [b, k], for inference; x as in `features`. Only for methods that learn
    a classifier.
    """

    classes: tuple[str, ...] = ()
    """Class names of the columns of `logits`."""

    towers: Mapping[str, Callable[[Tree, Tree, Tree], jax.Array]] = MappingProxyType({})
    """For methods that embed the parts of an example in one space: name of the part, such as
    "image" or "text" -> ((params, extra, x) -> [b, d] float32 of unit length), for inference. x is
    what `Input.parts` of this name returns."""

    turns: Mapping[str, Turns] = MappingProxyType({})
    """Path in `params`, such as "encoder/layer0" -> ranges of steps (first, end), rising, in which
    the optimizer updates the parameters under the path. In all other steps they and the optimizer's
    state do not change. `objective` must also stop their gradient there, so that the norm of the
    gradient, which is logged and clipped, is that of the trained parameters.
    """


def names() -> list[str]:
    """Names of all methods, listed without importing them."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def get(name: str) -> Callable[..., Method]:
    """Returns the `make` function of a method.

    Args:
      name: a module of this package, or "module:function" of another module.

    Raises:
      ValueError: if there is no method with this name; the message lists all names.
      Fault: if the module of an external method is not allowed or cannot be imported.
    """
    if plugins.is_external(name):
        return plugins.load(name)
    if name not in names():
        raise ValueError(f"unknown method {name!r}; choose one of: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}").make
