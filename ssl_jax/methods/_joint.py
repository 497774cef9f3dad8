"""Shared part of the methods that embed two views with one network and compare the embeddings."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from ssl_jax.methods import Batch, Method, Run, Tree
from ssl_jax.methods._keys import example_keys
from ssl_jax.methods._temperature import Temperature
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain

Loss = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


def scaled(loss: Loss, scale: float) -> Loss:
    """Returns the loss, but not its metrics, multiplied by `scale`.

    Raises:
      ValueError: if the scale is not a finite number above 0.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be a finite number above 0, got {scale}")

    def scaled_loss(*args: Any, **options: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        value, metrics = loss(*args, **options)
        return scale * value, metrics

    return scaled_loss


def joint_embedding(
    encoder: nn.Module,
    head: nn.Module,
    run: Run,
    loss: Loss,
    *,
    apart: bool = False,
    temperature: Temperature | None = None,
    penalty: Callable[[Tree], jax.Array] | None = None,
) -> Method:
    """Passes both views through encoder and head in one forward.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f].
      head: linen module from features to embeddings.
      run: two views.
      loss: embeddings [b, 2, d] -> (scalar, metrics).
      apart: True gives each view its own BatchNorm statistics, as if the views were forwarded one
        by one; False shares the statistics between both views.
      temperature: schedule of the argument `temperature` of the loss; None for a loss without it.
      penalty: function of the head's parameters that is added to the loss, and logged as
        "head_penalty"; None adds nothing.

    Raises:
      ValueError: if the run does not have two views of one size.
    """
    check_views(run, 2)
    networks = Chain(run.bn_group, 2, encoder=encoder, head=head)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        params, stats = networks.init(key, batch["views"])
        return params, {"batch_stats": stats}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        # Every example has its own key, so that it may be encoded in any chunk.
        dropout = getattr(head, "dropout", 0)
        keys = example_keys(key, batch["index"]) if dropout else None
        outputs, stats = networks(
            params, extra["batch_stats"], batch["views"], apart=apart, keys=keys
        )
        return {"z": outputs["head"], "features": outputs["encoder"]}, stats

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del key
        z = outputs["z"]
        value, metrics = temperature.apply(loss, step, z) if temperature else loss(z)
        if penalty:
            size = penalty(params["head"])
            value, metrics = value + size, metrics | {"head_penalty": jax.lax.stop_gradient(size)}
        return value, (extra, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"], images)

    return Method(init, encode, objective, features)
