"""SimCLR: a simple framework for contrastive learning (Chen et al. 2020, arXiv 2002.05709)."""

import flax.linen as nn
import jax

from ssl_jax.losses import nt_xent
from ssl_jax.methods import Batch, Method, Run, Tree
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import ProjectionHead


def make(
    encoder: nn.Module,
    run: Run,
    *,
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
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      temperature: of the NT-Xent softmax.
      head_depth: layers of the projection head, 0 to 3; the paper's is 2.
      hidden_dim: width of the head's hidden layers; 0 for the encoder's, as in the authors' code.
      output_dim: width of the projections.
    """
    if len(run.views) != 2:
        raise ValueError(f"SimCLR takes 2 views, got {len(run.views)}")
    head = ProjectionHead(
        depth=head_depth,
        hidden_dim=hidden_dim or None,
        output_dim=output_dim,
        dtype=encoder.dtype,
    )
    networks = Chain(run.bn_group, 2, encoder=encoder, head=head)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        params, stats = networks.init(key, batch["views"])
        return params, {"batch_stats": stats}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del key
        outputs, stats = networks(params, extra["batch_stats"], batch["views"])
        return {"z": outputs["head"], "features": outputs["encoder"]}, stats

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        loss, metrics = nt_xent(outputs["z"], temperature=temperature)
        return loss, (extra, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"], images)

    return Method(init=init, encode=encode, objective=objective, features=features)
