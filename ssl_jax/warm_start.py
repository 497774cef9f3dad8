"""Pre-training that starts from weights that exist: a run's, an export's, another project's."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.methods import Batch, Method, Tree
from ssl_jax.weights import Weights, shapes

# Of a model's fields, those that say only how fresh weights are drawn.
FRESH = ("zero_gamma",)


def method_from(method: Method, weights: Weights, origin: str) -> Method:
    """`method`, whose encoder starts as `weights`; of a target network too, and of its queue's.

    An encoder is whatever lies under the name "encoder" in what the method keeps and has the
    weights' shapes. All else, heads and queues, starts as ever.

    Args:
      origin: of the weights, for messages.
    """

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        fresh = method.init(key, batch)
        places: list[str] = []
        state = _replace(fresh, weights, places)
        if "params" not in places:
            message = (
                f"model.init={origin}: this method keeps no encoder of these shapes; leave "
                "model.init empty, or choose the model that the weights are of"
            )
            raise Fault(message, BAD_CONFIG)
        return state

    return method._replace(init=init)


def check_model(config: Mapping[str, Any], model: Mapping[str, Any], origin: str) -> None:
    """Holds a config's model against the one that weights are of.

    Raises:
      Fault: they differ; names the flags that make them one.
    """
    odd = [
        f"--config.model.{name}={model[name]!r}".replace(" ", "")
        for name in model
        if name not in FRESH and name in config and _plain(config[name]) != _plain(model[name])
    ]
    odd += [f"{name}={model[name]!r}" for name in model if name not in config and name not in FRESH]
    if odd:
        raise Fault(
            f"model.init={origin} holds weights of another model; it wants:\n  " + "\n  ".join(odd),
            BAD_CONFIG,
        )


def _plain(value: Any) -> Any:
    return [float(v) for v in value] if isinstance(value, tuple | list) else value


def _replace(tree: Tree, weights: Weights, places: list[str]) -> Tree:
    if isinstance(tree, tuple):
        return tuple(_replace(branch, weights, places) for branch in tree)
    if not isinstance(tree, Mapping):
        return tree
    new = {}
    for name, branch in tree.items():
        kinds = {"params": weights.params, "batch_stats": weights.batch_stats}
        found = shapes(branch) if name == "encoder" else {}
        fits = [kind for kind in kinds if found and found == shapes(kinds[kind])]
        places += fits
        new[name] = (
            _called_for(kinds[fits[0]], branch) if fits else _replace(branch, weights, places)
        )
    return new


def _called_for(arrays: Tree, like: Tree) -> Tree:
    """`arrays` in the dtypes of `like`, by a callback: a program that held them as constants would
    spell every number out."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays)
    found = jax.pure_callback(lambda: arrays, shapes)
    return jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), found, like)
