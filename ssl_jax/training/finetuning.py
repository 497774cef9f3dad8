"""Fine-tuning: classification on top of a pre-trained encoder that continues to learn.

It is a `Method` whose objective takes labels, so that it uses the same training step.
"""

import jax
import jax.numpy as jnp
import optax

from ssl_jax.methods import Batch, Method, Tree
from ssl_jax.models.chain import Chain


def make(
    networks: Chain, weights: Tree, *, pretrained: tuple[str, ...] = ("encoder", "head")
) -> Method:
    """Makes the method that fine-tunes `networks`; train it with `supervised=True`.

    The loss is the mean cross-entropy over the global batch. The metric "accuracy" is measured on
    the augmented examples of the batch.

    Args:
      networks: encoder, optional layers of the projection head, and "classifier".
      weights: pre-trained (params, batch_stats) by module; arrays, or tracers inside `jax.jit`.
      pretrained: modules that start from `weights`; other modules are initialised randomly.
    """

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        fresh = networks.init(key, batch["views"])
        params, stats = (
            new | {name: _copy(new[name], old[name]) for name in pretrained if name in new}
            for new, old in zip(fresh, weights, strict=True)
        )
        return params, {"batch_stats": stats}

    def encode(
        params: Tree, extra: Tree, batch: Batch, key: jax.Array
    ) -> tuple[dict[str, jax.Array], Tree]:
        del key
        outputs, stats = networks(params, extra["batch_stats"], batch["views"])
        return {"logits": outputs["classifier"][:, 0]}, stats

    def objective(
        params: Tree, extra: Tree, outputs: dict[str, jax.Array], key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[Tree, dict[str, jax.Array]]]:
        del params, key, step
        logits, label = outputs["logits"], outputs["label"]
        loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, label).mean()
        return loss, (extra, {"accuracy": (logits.argmax(-1) == label).mean()})

    def logits(params: Tree, extra: Tree, x: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"], x, upto="classifier")

    def features(params: Tree, extra: Tree, x: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"], x)

    return Method(init=init, encode=encode, objective=objective, features=features, logits=logits)


def _copy(new: Tree, old: Tree) -> Tree:
    """Returns the arrays of `old` that `new` has, too: fine-tuning may use only part of a head."""
    if not isinstance(new, dict):
        return jnp.asarray(old)
    return {name: _copy(tree, old[name]) for name, tree in new.items()}
