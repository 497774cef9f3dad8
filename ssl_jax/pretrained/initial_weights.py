"""Pre-training that starts from weights that exist: a run's, an export's, another project's."""

import shlex
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax import models
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.methods import Batch, Method, Tree
from ssl_jax.weights import Weights, shapes

# Of a model's options, those that say how fresh weights are drawn, or how a run computes.
NOT_OF_WEIGHTS = ("zero_gamma", "bn_group", "init", "dtype")


def method_from(method: Method, weights: Weights, origin: str) -> Method:
    """`method`, whose encoder starts as `weights`; that of a target network or memory too.

    An encoder is whatever lies under the name "encoder" in what the method keeps and has the
    weights' shapes. All else, heads and queues, starts as ever.

    Args:
      origin: of the weights, for messages.
    """

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        placed: list[Any] = []
        params, extra = _replace(method.init(key, batch), weights, placed)
        encoder = method.modules(params, extra)[0].get("encoder")
        # A method may evaluate another copy than it trains: both must start here.
        leaves = jax.tree.leaves([params.get("encoder"), encoder])
        if not leaves or not all(any(leaf is x for x in placed) for leaf in leaves):
            message = (
                f"model.init={origin}: this method keeps no encoder of these shapes under that "
                "name; leave model.init empty, or choose the model that the weights are of"
            )
            raise Fault(message, BAD_CONFIG)
        return params, extra

    return method._replace(init=init)


def check_model(config: Mapping[str, Any], model: Mapping[str, Any], origin: str) -> None:
    """Holds a config's model against the one that weights are of.

    Raises:
      Fault: they differ; names the flags that make them one.
    """
    ours, theirs = (
        models.get(**{k: v for k, v in one.items() if k not in NOT_OF_WEIGHTS}, dtype=jnp.float32)
        for one in (config, model)
    )
    odd = {"name": model["name"]} if config["name"] != model["name"] else {}
    if type(ours) is type(theirs):
        odd |= {
            option: getattr(theirs, option, None)
            for option in {**config, **model}
            if option not in (*NOT_OF_WEIGHTS, "name")
            and getattr(ours, option, None) != getattr(theirs, option, None)
        }
    if odd:
        flags = [f"--config.model.{o}={shlex.quote(str(value))}" for o, value in odd.items()]
        message = f"model.init={origin} holds weights of another model; it wants:\n  "
        raise Fault(message + "\n  ".join(flags), BAD_CONFIG)


def _replace(tree: Tree, weights: Weights, placed: list[Any]) -> Tree:
    """`tree` with the weights in every place of theirs; their leaves are added to `placed`."""
    if isinstance(tree, tuple):
        return tuple(_replace(branch, weights, placed) for branch in tree)
    if not isinstance(tree, Mapping):
        return tree
    new = {}
    for name, branch in tree.items():
        found = shapes(branch) if name == "encoder" else {}
        kinds = (weights.params, weights.batch_stats)
        fits = [kind for kind in kinds if found and found == shapes(kind)]
        if name == "teacher":
            new[name] = branch  # what a student learns from stays what it is
        elif fits:
            new[name] = _called_for(fits[0], branch)
            placed += jax.tree.leaves(new[name])
        else:
            new[name] = _replace(branch, weights, placed)
    return new


def _called_for(arrays: Tree, like: Tree) -> Tree:
    """`arrays` in the dtypes of `like`, by a callback: a program that held them as constants would
    spell every number out."""
    kinds = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays)
    found = jax.pure_callback(lambda: arrays, kinds)
    return jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), found, like)
