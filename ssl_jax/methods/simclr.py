"""SimCLR: a simple framework for contrastive learning (Chen et al. 2020, arXiv 2002.05709)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.augment.views import View
from ssl_jax.losses import nt_xent
from ssl_jax.methods import Batch, Method, Tree
from ssl_jax.models.heads import ProjectionHead


def make(
    encoder: nn.Module,
    *,
    views: tuple[View, ...],
    total_steps: int,
    temperature: float = 0.1,
    head_depth: int = 2,
    hidden_dim: int = 0,
    output_dim: int = 128,
) -> Method:
    """SimCLR (arXiv 2002.05709, section 2.1): two views, one forward, NT-Xent over the batch.

    Both views pass the encoder and the projection head together and share their BatchNorm
    statistics, as in the authors' code. Representations for use are the encoder's output, before
    the head (section 4.2).

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with attributes `dtype`
        and `bn_group`, which the head shares.
      views: exactly two.
      temperature: of the NT-Xent softmax.
      hidden_dim: width of the head's hidden layers; 0 for the encoder's, as in the authors' code.
      head_depth: layers of the projection head, 0 to 3; the paper's is 2.
    """
    del total_steps
    if len(views) != 2:
        raise ValueError(f"SimCLR takes 2 views, got {len(views)}")
    head = ProjectionHead(
        depth=head_depth,
        hidden_dim=hidden_dim or None,
        output_dim=output_dim,
        bn_group=encoder.bn_group,
        dtype=encoder.dtype,
    )

    def forward(params: Tree, stats: Tree, images: jax.Array) -> tuple[jax.Array, jax.Array, Tree]:
        h, encoder_stats = encoder.apply(
            {"params": params["encoder"], "batch_stats": stats["encoder"]},
            images,
            True,
            mutable=["batch_stats"],
        )
        z, head_stats = head.apply(
            {"params": params["head"], "batch_stats": stats["head"]},
            h,
            True,
            mutable=["batch_stats"],
        )
        new = {
            "encoder": encoder_stats.get("batch_stats", {}),
            "head": head_stats.get("batch_stats", {}),
        }
        return h, z, new

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        encoder_key, head_key = jax.random.split(key)
        images = batch["views"][:, 0]
        h, encoder_vars = encoder.init_with_output(encoder_key, images, True)
        head_vars = head.init(head_key, h, True)
        modules = {"encoder": encoder_vars, "head": head_vars}
        params = {name: v.get("params", {}) for name, v in modules.items()}
        stats = {name: v.get("batch_stats", {}) for name, v in modules.items()}
        return params, {"batch_stats": stats}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array, train: bool):
        del key
        if not train:
            raise ValueError("encode is for training; use features for inference")
        b, v = batch["views"].shape[:2]
        images = batch["views"].reshape(b * v, *batch["views"].shape[2:])
        h, z, stats = forward(params, extra["batch_stats"], images)
        outputs = {"z": z.reshape(b, v, -1), "features": h.reshape(b, v, -1)}
        return outputs, stats

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        loss, metrics = nt_xent(outputs["z"], temperature=temperature)
        return loss, (extra, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        variables = {
            "params": params["encoder"],
            "batch_stats": extra["batch_stats"]["encoder"],
        }
        return jnp.asarray(encoder.apply(variables, images, False), jnp.float32)

    return Method(views=views, init=init, encode=encode, objective=objective, features=features)
