"""Contrast of two views and an attacked view of every image (RoCL, Kim et al. 2020)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.losses import nt_xent, supervised_contrastive
from ssl_jax.methods import Batch, Method, Run, Tree
from ssl_jax.methods._attack import Attack, instance_loss, perturb, start_noise
from ssl_jax.methods._joint import scaled
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain


def adversarial_embedding(
    encoder: nn.Module,
    head: nn.Module,
    run: Run,
    attack: Attack,
    *,
    temperature: float,
    weight: float,
    scale: float,
) -> Method:
    """Embeds two views and an attacked first view, and makes all three of an image agree.

    `encode` attacks the first view so that the network, in inference mode, no longer recognises the
    second view among those of the examples with the same BatchNorm statistics. It then embeds the
    three views in one forward in training mode. The attack depends only on an example and its
    normalisation group, so micro-batches save memory and change no result.

    The loss is the sum over an anchor's two positives of their cross-entropy among all other views
    of the global batch, averaged over the 3b anchors, plus `weight` times NT-Xent between the
    attacked and the second view. The authors' code adds the cross-entropies, too; the paper's
    equation adds the positives inside one logarithm.

    Args:
      encoder, head, run: as in `joint_embedding`.
      attack: strength of the attack.
      temperature: temperature of attack and loss.
      weight: weight of the second term (lambda in the paper), at least 0.
      scale: factor of the loss.

    Raises:
      ValueError: bad attack, weight or scale, or the run does not have two views of one size.

    Source: Kim et al. (arXiv 2006.07589), section 3, and the authors' code (rocl_train.py).
    """
    check_views(run, 2)
    attack.check()
    if not 0 <= weight < math.inf:
        raise ValueError(f"attack_weight must be a finite number of at least 0, got {weight}")
    networks = Chain(run.bn_group, 2, encoder=encoder, head=head)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        params, stats = networks.init(key, batch["views"])
        return params, {"batch_stats": stats}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        views, stats = batch["views"], extra["batch_stats"]
        fixed = jax.lax.stop_gradient(params)
        target = networks.inference(fixed, stats, views[:, 1])

        def loss(images: jax.Array) -> jax.Array:
            return instance_loss(
                networks.inference(fixed, stats, images),
                target,
                temperature=temperature,
                group=run.bn_group // 2 or len(images),
            )

        first = views[:, 0]
        attacked = perturb(loss, first, start_noise(key, batch["index"], first), attack)
        images = jnp.concatenate([views, attacked[:, None]], axis=1)
        outputs, new = networks(params, stats, images)
        return {"z": outputs["head"], "features": outputs["encoder"][:, :2]}, new

    def contrast(z: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        no_label = jnp.full(len(z), -1, jnp.int32)
        mean, _ = supervised_contrastive(z, no_label, temperature=temperature)
        pair, metrics = nt_xent(z[:, 1:], temperature=temperature)
        return 2 * mean + weight * pair, metrics

    whole = scaled(contrast, scale)

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        value, metrics = whole(outputs["z"])
        return value, (extra, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"], images)

    return Method(init, encode, objective, features)
