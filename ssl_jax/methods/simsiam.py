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
    """SimSiam (arXiv 2011.10566, section 3): like BYOL, with the network itself as the target.

    All layers of the projector have BatchNorm; the last has no ReLU and, as in the authors' code,
    neither scale nor bias. The predictor is a bottleneck with BatchNorm after its first layer. Each
    view has its own BatchNorm statistics, as if the views were forwarded one by one.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      hidden_dim: width of the projector's hidden layers; 0 uses the encoder's feature width.
      bottleneck_dim: width of the predictor's hidden layer.
      output_dim: width of projections and predictions.
      head_depth: number of layers of the projector: 3, or 2 for CIFAR-10 (appendix D).

    Raises:
      ValueError: if the run does not have two views of one size.
    """
    check_views(run, 2)
    widths = (hidden_dim,) * (head_depth - 1) + (output_dim,)
    networks = Chain(
        run.bn_group,
        2,
        encoder=encoder,
        projector=MLP(widths, last_norm="plain", dense_init="torch", dtype=encoder.dtype),
        predictor=MLP((bottleneck_dim, output_dim), dense_init="torch", dtype=encoder.dtype),
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
