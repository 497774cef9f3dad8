"""The one seam of the project: what a self-supervised method is.

A method is one module in this folder whose single public symbol is
`make(encoder, run, **hyperparameters) -> Method`. The loop never branches on it.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ssl_jax import plugins

Tree = Any
Batch = dict[str, jax.Array]


class Run(NamedTuple):
    """What a method may know of the run around it."""

    seen: dict[str, jax.ShapeDtypeStruct]
    """Arrays of one example as `encode` sees them, without the batch axis: `Input.seen`. Most
    inputs have "views" [v, ...], and images with local crops also "local_views"."""

    total_steps: int
    batch_size: int  # global, in examples
    num_examples: int  # examples that `batch["index"]` counts
    bn_group: int = 0
    """Rows of full-size views that share BatchNorm statistics; 0 = the global batch."""

    chunk: int = 0
    """Examples that keep their neighbours when the batch is divided: one device's part of a
    micro-batch. 0 = without micro-batches, all."""


def merge_statistics(params: Tree, extra: Tree, stats: Tree, step: jax.Array) -> Tree:
    """Default `after_update`: the statistics that `encode` returned replace the old ones."""
    del params, step
    return {**extra, "batch_stats": stats}


def online_modules(params: Tree, extra: Tree) -> tuple[Tree, Tree]:
    """Default `modules`: the trained ones, whose statistics are "online" beside a target's."""
    stats = extra.get("batch_stats", {})
    return params, stats.get("online", stats)


class Method(NamedTuple):
    """A self-supervised method as data and pure functions.

    Letters: b examples, v views, f features. `extra` is opaque to the loop: batch statistics,
    momentum encoder, queue, memory bank. A batch holds the arrays of `Run.seen`, for
    images "views" [b, v, h, w, c] in [0, 1], and "index" [b], which example each is.
    """

    init: Callable[[jax.Array, Batch], tuple[Tree, Tree]]
    """(key, batch of shapes) -> (params, extra). Runs under `jax.eval_shape` and sharded jit."""

    encode: Callable[[Tree, Tree, Batch, jax.Array], tuple[dict[str, jax.Array], Tree]]
    """(params, extra, batch, key) -> (outputs, stats), in training. Row i of every output depends
    on example i and on normalisation groups alone, so the batch may be encoded in chunks, all with
    one key: what is drawn for an example is drawn by `fold_in(key, index)`. An output named
    "features", [b, v, f], feeds the online probe and the health signals."""

    objective: Callable[[Tree, Tree, dict[str, jax.Array], jax.Array, jax.Array], tuple]
    """(params, extra, outputs, key, step) -> (loss, (extra, metrics)). The only place where
    examples meet. Never sees a label."""

    features: Callable[[Tree, Tree, jax.Array], jax.Array]
    """(params, extra, x) -> [b, f] float32, for inference. x is the input's evaluation array as
    `Input.to_model` returns it: for images [b, h, w, c] in [0, 1]."""

    after_update: Callable[[Tree, Tree, Tree, jax.Array], Tree] = merge_statistics
    """(params, extra, stats, step) -> extra, after the optimizer's step."""

    layout: Tree = "replicated"
    """Prefix tree of words, how `extra` is laid out over devices: "replicated", "rows" (divided by
    the first axis), "parameters" (as parameters are, which `parallel.fsdp` divides)."""

    evals: tuple[str, ...] = ("knn", "linear")

    samples: Callable[[Tree, Tree, jax.Array, int], jax.Array] | None = None
    """(params, extra, key, count) -> images [count, h, w, 3] in [0, 1] that the model generates;
    None where it generates none. Neighbours may belong together: they stand in rows of ten."""

    modules: Callable[[Tree, Tree], tuple[Tree, Tree]] = online_modules
    """(params, extra) -> (params, batch_stats), dicts of modules by name. `features` are the output
    of the one called "encoder"; fine-tuning begins there."""

    logits: Callable[[Tree, Tree, jax.Array], jax.Array] | None = None
    """(params, extra, x) -> [b, k], for inference, of a method that learns a classifier; x as in
    `features`."""

    classes: tuple[str, ...] = ()
    """Names of what the columns of `logits` stand for."""


def names() -> list[str]:
    """The methods that exist, found without importing them."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def get(name: str) -> Callable[..., Method]:
    """Returns `make` of the method called `name`.

    Args:
      name: a module of this package, or "module:function" of another module.

    Raises:
      ValueError: no such method; the message lists those that exist.
      Fault: the module of an outside method is not allowed or cannot be imported.
    """
    if plugins.is_external(name):
        return plugins.load(name)
    if name not in names():
        raise ValueError(f"unknown method {name!r}; there are: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}").make
