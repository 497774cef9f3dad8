"""MoCo v3: momentum contrast with the keys of the batch (Chen et al. 2021, arXiv 2104.02057)."""

import flax.linen as nn
import jax

from ssl_jax.losses import info_nce
from ssl_jax.methods import Method, Run, _temperature
from ssl_jax.methods._momentum import predict_target
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import MLP


def make(
    encoder: nn.Module,
    run: Run,
    *,
    temperature: float = 1.0,
    momentum: float = 0.99,
    head_depth: int = 2,
    predictor_norm: bool = False,
    hidden_dim: int = 4096,
    output_dim: int = 256,
    last_bias: bool = False,
    temperature_schedule: str = "constant",
    temperature_end: float = 0.1,
    temperature_periods: float = 0.5,
) -> Method:
    """MoCo v3 (arXiv 2104.02057, section 3, algorithm 1): every view queries the keys of the other.

    The loss is ctr(q1, k2) + ctr(q2, k1), where ctr is 2 * temperature times InfoNCE over the keys
    of the whole batch. The projector ends in a BatchNorm without scale and bias. The momentum
    encoder starts as a copy; its momentum rises to 1 along a cosine.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      temperature: temperature of the InfoNCE softmax: 1.0 for ResNet-50, 0.2 for ViT.
      momentum: momentum of the momentum encoder at the first step; 0.996 for 1000 epochs of
        ResNet-50.
      head_depth: number of layers of the projector: 2 for ResNet-50, 3 for ViT.
      predictor_norm: whether the two-layer predictor also ends in a BatchNorm without scale and
        bias. True for ViT in the authors' code (facebookresearch/moco-v3, moco/builder.py).
      hidden_dim: width of the hidden layers of both heads.
      output_dim: width of projections and predictions.
      last_bias: whether the predictor's last layer has a bias if no BatchNorm follows it. The
        authors' code has none (moco/builder.py, _build_mlp).
      temperature_schedule: "constant", "cosine" or "log" (`_temperature.make`).
      temperature_end: temperature after half a period of "cosine".
      temperature_periods: periods of "cosine" in the run: 0.5 falls from `temperature` to
        `temperature_end`, more swing between the two.

    Raises:
      ValueError: if the run does not have two views of one size, or the schedule is refused
        (`_temperature.make`).
    """
    widths = (hidden_dim,) * (head_depth - 1) + (output_dim,)
    norm = "plain" if predictor_norm else ""
    predictor = MLP(
        (hidden_dim, output_dim),
        last_norm=norm,
        last_bias=last_bias,
        dense_init="torch",
        dtype=encoder.dtype,
    )
    networks = Chain(
        run.bn_group,
        2,
        encoder=encoder,
        projector=MLP(widths, last_norm="plain", dense_init="torch", dtype=encoder.dtype),
        predictor=predictor,
    )

    schedule = _temperature.make(
        temperature,
        run.total_steps,
        schedule=temperature_schedule,
        end=temperature_end,
        periods=temperature_periods,
    )

    def both_ways(query: jax.Array, key: jax.Array, *, temperature: float | jax.Array):
        loss_1, metrics_1 = info_nce(query[:, 0], key[:, 1], temperature=temperature)
        loss_2, metrics_2 = info_nce(query[:, 1], key[:, 0], temperature=temperature)
        metrics = jax.tree.map(lambda a, b: (a + b) / 2, metrics_1, metrics_2)
        return 2 * temperature * (loss_1 + loss_2), metrics

    def loss(query: jax.Array, key: jax.Array, step: jax.Array):
        return schedule.apply(both_ways, step, query, key)

    return predict_target(networks, run, loss, momentum=momentum, own_target=False)
