"""Starts pre-training from existing weights: of a run, an export or another project."""

import shlex
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax import models
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.methods import Batch, Method, Tree
from ssl_jax.weights import Weights, shapes

# Options of a model that may differ: they affect the random initialisation or the computation.
IGNORED_OPTIONS = ("zero_gamma", "bn_group", "init", "dtype")


def method_from(method: Method, weights: Weights, origin: str) -> Method:
    """Returns a method whose encoder, and copies of it in a target network, start from `weights`.

    Every subtree called "encoder" in the method's params and extra is replaced if its shapes are
    those of the weights. Heads and queues are initialised as usual.

    Args:
      method: the method.
      weights: weights of the encoder.
      origin: origin of the weights, for messages.

    The returned method's `init` raises Fault if the method has no encoder of these shapes.
    """

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        inserted: list[Any] = []
        params, extra = _replace(method.init(key, batch), weights, inserted)
        encoder = method.modules(params, extra)[0].get("encoder")
        # The evaluated copy of the encoder may differ from the trained one. Both must start from
        # the weights.
        leaves = jax.tree.leaves([params.get("encoder"), encoder])
        if not leaves or not all(any(leaf is x for x in inserted) for leaf in leaves):
            message = (
                f"model.init={origin}: this method has no encoder of these shapes. Leave "
                "model.init empty, or choose the model of the weights"
            )
            raise Fault(message, BAD_CONFIG)
        return params, extra

    return method._replace(init=init)


def check_model(config: Mapping[str, Any], model: Mapping[str, Any], origin: str) -> None:
    """Compares the config's model with the model of the weights.

    Args:
      config: fields of `config.model`.
      model: fields of the model of the weights.
      origin: origin of the weights, for the message.

    Raises:
      Fault: the models differ; the message gives the flags that make them equal.
    """
    configured, required = (
        models.get(**{k: v for k, v in one.items() if k not in IGNORED_OPTIONS}, dtype=jnp.float32)
        for one in (config, model)
    )
    changes = {"name": model["name"]} if config["name"] != model["name"] else {}
    if type(configured) is type(required):
        changes |= {
            option: getattr(required, option, None)
            for option in {**config, **model}
            if option not in (*IGNORED_OPTIONS, "name")
            and getattr(configured, option, None) != getattr(required, option, None)
        }
    if changes:
        flags = [f"--config.model.{o}={shlex.quote(str(value))}" for o, value in changes.items()]
        message = f"model.init={origin} holds weights of another model. Add these flags:\n  "
        raise Fault(message + "\n  ".join(flags), BAD_CONFIG)


def _replace(tree: Tree, weights: Weights, inserted: list[Any]) -> Tree:
    """Returns `tree` with the weights in every encoder; adds their leaves to `inserted`."""
    if isinstance(tree, tuple):
        return tuple(_replace(branch, weights, inserted) for branch in tree)
    if not isinstance(tree, Mapping):
        return tree
    new = {}
    for name, branch in tree.items():
        encoder_shapes = shapes(branch) if name == "encoder" else {}
        kinds = (weights.params, weights.batch_stats)
        matches = [kind for kind in kinds if encoder_shapes and encoder_shapes == shapes(kind)]
        if name == "teacher":
            new[name] = branch  # a student's teacher keeps its weights
        elif matches:
            new[name] = _as_callback(matches[0], branch)
            inserted += jax.tree.leaves(new[name])
        else:
            new[name] = _replace(branch, weights, inserted)
    return new


def _as_callback(arrays: Tree, like: Tree) -> Tree:
    """Returns `arrays` in the dtypes of `like`, fetched by a callback inside jit.

    As constants, the program text would contain every number.
    """
    kinds = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays)
    fetched = jax.pure_callback(lambda: arrays, kinds)
    return jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), fetched, like)
