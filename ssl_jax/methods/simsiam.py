"""SimSiam: simple siamese representation learning (Chen and He 2020, arXiv 2011.10566)."""

import flax.linen as nn
import jax

from ssl_jax.losses import simsiam
from ssl_jax.methods import Batch, Method, Run, Tree
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import MLP


def make(
    encoder: nn.Module,
    run: Run,
    *,
    hidden_dim: int = 0,
    bottleneck_dim: int = 512,
    output_dim: int = 2048,
    head_depth: int = 3,
) -> Method:
    """SimSiam (arXiv 2011.10566, section 3): BYOL whose target is the network itself.

    The projector's layers all have BatchNorm, the last without ReLU (and, as in the authors' code,
    without scale and bias); the predictor is a bottleneck with BatchNorm after its first layer.
    Views are normalised apart, as if forwarded one by one.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      hidden_dim, output_dim: widths of the projector; hidden 0 for the encoder's.
      bottleneck_dim: hidden width of the predictor.
      head_depth: layers of the projector: 3; 2 for CIFAR-10 (appendix D).
    """
    check_views(run, 2)
    widths = (hidden_dim,) * (head_depth - 1) + (output_dim,)
    networks = Chain(
        run.bn_group,
        2,
        encoder=encoder,
        projector=MLP(widths, last_norm="plain", dtype=encoder.dtype),
        predictor=MLP((bottleneck_dim, output_dim), dtype=encoder.dtype),
    )

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        params, stats = networks.init(key, batch["views"])
        return params, {"batch_stats": stats}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del key
        outputs, stats = networks(params, extra["batch_stats"], batch["views"], apart=True)
        names = {"prediction": "predictor", "target": "projector", "features": "encoder"}
        return {name: outputs[module] for name, module in names.items()}, stats

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        loss, metrics = simsiam(outputs["prediction"], outputs["target"])
        return loss, (extra, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"], images)

    return Method(init, encode, objective, features)
