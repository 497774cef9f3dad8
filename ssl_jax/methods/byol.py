"""BYOL: bootstrap your own latent (Grill et al. 2020, arXiv 2006.07733)."""

import flax.linen as nn
import jax

from ssl_jax.losses import byol
from ssl_jax.methods import Method, Run
from ssl_jax.methods._momentum import predict_target
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import MLP


def make(
    encoder: nn.Module,
    run: Run,
    *,
    momentum: float = 0.996,
    hidden_dim: int = 4096,
    output_dim: int = 256,
    target_init: str = "own",
    output_norm: bool = False,
    last_bias: bool = False,
) -> Method:
    """BYOL (arXiv 2006.07733, section 3): predicts the target projection of the other view.

    Projector and predictor have two layers each, with BatchNorm after the first. The momentum of
    the target network rises to 1 along a cosine. The last three hyperparameters default to the
    authors' code (deepmind-research/byol, byol_experiment.py and utils/networks.py).

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      momentum: momentum of the target network at the first step. 0.996 is for 1000 epochs; the
        authors' code uses 0.99 for 300 and 100 epochs, and 0.97 for 40.
      hidden_dim: width of the hidden layer of both heads.
      output_dim: width of projections and predictions.
      target_init: "own" starts the target network from its own weights, "copy" from those of the
        online network.
      output_norm: whether the projector ends in a BatchNorm without scale and bias.
      last_bias: whether the last layer of both heads has a bias. A BatchNorm after the layer
        would cancel it, so with `output_norm` the projector has none.

    Raises:
      ValueError: if the run does not have two views of one size, or `target_init` is unknown.
    """
    if target_init not in ("own", "copy"):
        raise ValueError(f"unknown target_init {target_init!r}; choose one of: own, copy")
    norm = "plain" if output_norm else ""
    widths = (hidden_dim, output_dim)
    networks = Chain(
        run.bn_group,
        2,
        encoder=encoder,
        projector=MLP(widths, last_norm=norm, last_bias=last_bias, dtype=encoder.dtype),
        predictor=MLP(widths, last_bias=last_bias, dtype=encoder.dtype),
    )

    def loss(prediction: jax.Array, target: jax.Array, step: jax.Array):
        del step
        return byol(prediction, target)

    own_target = target_init == "own"
    return predict_target(networks, run, loss, momentum=momentum, own_target=own_target)
