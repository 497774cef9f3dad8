"""SimCLR v2: big self-supervised models are strong semi-supervised learners (arXiv 2006.10029)."""

import flax.linen as nn
import jax

from ssl_jax.losses import nt_xent
from ssl_jax.losses.softmax import normalise
from ssl_jax.methods import Batch, Method, Run, Tree, _temperature
from ssl_jax.methods._joint import joint_embedding, scaled
from ssl_jax.methods._momentum import distance, moving_average
from ssl_jax.methods._queue import count_slots
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import ProjectionHead


def make(
    encoder: nn.Module,
    run: Run,
    *,
    temperature: float = 0.1,
    head_depth: int = 3,
    hidden_dim: int = 0,
    output_dim: int = 128,
    memory_size: int = 0,
    memory_momentum: float = 0.999,
    scale: float = 1.0,
    temperature_schedule: str = "constant",
    temperature_end: float = 0.1,
    temperature_periods: float = 0.5,
) -> Method:
    """SimCLR v2's pre-training (arXiv 2006.10029, section 2): SimCLR with a deeper head.

    Bigger encoders with selective kernels are set by `model.sk_ratio` and `model.width`.
    Fine-tuning starts from the middle of the head. With a memory, as in MoCo, a moving average of
    the network projects both views, and every anchor receives the last projections as further
    negatives. The positive stays the anchor's other view. The paper mentions this memory without
    further details.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      temperature: temperature of the NT-Xent softmax.
      head_depth: number of layers of the projection head; the paper uses 3.
      hidden_dim: width of the head's hidden layers; 0 uses the encoder's feature width, as in the
        authors' code.
      output_dim: width of the projections.
      memory_size: images in the memory; a multiple of the batch size, 0 for no memory. The paper
        uses 65536.
      memory_momentum: momentum of the network that fills the memory.
      scale: factor of the loss. The authors' code minimises the sum of the losses of both views,
        which is twice the mean over all projections, so the recipes set 2. Under LARS the factor
        cancels in the updates of weights, except that it divides the share of the weight decay;
        biases and normalisation parameters, which LARS does not adapt, move `scale` times as far.
      temperature_schedule: "constant", "cosine" or "log" (`_temperature.make`).
      temperature_end: temperature after half a period of "cosine".
      temperature_periods: periods of "cosine" in the run: 0.5 falls from `temperature` to
        `temperature_end`, more swing between the two.

    Raises:
      ValueError: if there are not two views of one size, the scale is not above 0, the schedule is
        refused (`_temperature.make`), or the memory size is not a multiple of the batch size.
    """
    head = ProjectionHead(
        depth=head_depth,
        hidden_dim=hidden_dim or None,
        output_dim=output_dim,
        dtype=encoder.dtype,
    )
    schedule = _temperature.make(
        temperature,
        run.total_steps,
        schedule=temperature_schedule,
        end=temperature_end,
        periods=temperature_periods,
    )

    def mean_loss(z: jax.Array, queue: jax.Array | None = None, *, temperature: float | jax.Array):
        return nt_xent(z, temperature=temperature, queue=queue)

    loss = scaled(mean_loss, scale)
    simclr = joint_embedding(encoder, head, run, loss, temperature=schedule)
    slots = count_slots("memory_size", memory_size, run.batch_size)
    if not slots:
        return simclr
    networks = Chain(run.bn_group, 2, encoder=encoder, head=head)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        params, extra = simclr.init(key, batch)
        noise = jax.random.normal(
            jax.random.fold_in(key, 1), (run.batch_size, slots, 2, output_dim)
        )
        stats = extra["batch_stats"]
        extra = {"online": extra, "target": params, "target_stats": stats}
        return params, extra | {"queue": normalise(noise)}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        outputs, stats = simclr.encode(params, extra["online"], batch, key)
        target, target_stats = networks(extra["target"], extra["target_stats"], batch["views"])
        return outputs | {"memory": target["head"]}, {"online": stats, "target": target_stats}

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del key
        queue = extra["queue"]
        rows = queue.reshape(-1, output_dim)
        value, metrics = schedule.apply(loss, step, outputs["z"], rows)
        new = jax.lax.stop_gradient(normalise(outputs["memory"]))
        queue = queue.at[:, step % slots].set(new.astype(queue.dtype))
        return value, (extra | {"queue": queue}, metrics | distance(extra["target"], params))

    def after_update(params: Tree, extra: Tree, stats: Tree, step: jax.Array) -> Tree:
        del step
        return extra | {
            "online": {"batch_stats": stats["online"]},
            "target": moving_average(extra["target"], params, memory_momentum),
            "target_stats": stats["target"],
        }

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return simclr.features(params, extra["online"], images)

    def modules(params: Tree, extra: Tree) -> tuple[Tree, Tree]:
        return simclr.modules(params, extra["online"])

    layout = {"online": "replicated", "target": "parameters", "target_stats": "replicated"}
    layout |= {"queue": "rows"}
    return Method(init, encode, objective, features, after_update, layout, modules=modules)
