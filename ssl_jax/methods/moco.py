"""MoCo v1 and v2: momentum contrast with a queue of keys (arXiv 1911.05722, 2003.04297)."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.losses import info_nce
from ssl_jax.losses.softmax import normalise
from ssl_jax.methods import Batch, Method, Run, Tree, _temperature
from ssl_jax.methods._momentum import distance, moving_average
from ssl_jax.methods._queue import count_slots
from ssl_jax.methods._rows import shard_rows
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import MLP


def make(
    encoder: nn.Module,
    run: Run,
    *,
    temperature: float = 0.2,
    momentum: float = 0.999,
    queue_size: int = 65536,
    head_depth: int = 2,
    hidden_dim: int = 0,
    output_dim: int = 128,
    shuffle_groups: int = 8,
    temperature_schedule: str = "constant",
    temperature_end: float = 0.1,
    temperature_periods: float = 0.5,
) -> Method:
    """MoCo (arXiv 1911.05722, section 3, algorithm 1). A head of depth 1 is v1, depth 2 is v2.

    The first view is the query; the momentum encoder encodes the second view as the key. The
    negatives of a query are the keys of the last queue_size / batch_size steps. The queue starts as
    noise. The momentum encoder is updated after every optimizer step, hence before the next keys.
    It keeps its own running statistics.

    Shuffling BN: with normalisation groups (`run.bn_group`), keys are permuted among
    `shuffle_groups` groups before the momentum encoder and permuted back after it. The statistics
    of a group then reveal nothing about the positive. Each step draws one permutation and applies
    it to every block of `shuffle_groups` groups, so images leave their device only if their block
    spans devices. The paper permutes over all GPUs' images, 8 groups of 32. Without groups there is
    no leak to prevent.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      temperature: temperature of the InfoNCE softmax: 0.07 in v1, 0.2 in v2.
      momentum: momentum of the momentum encoder.
      queue_size: number of keys in the queue, K; a multiple of the batch size.
      head_depth: number of layers of the head, without BatchNorm.
      hidden_dim: width of the head's hidden layers; 0 uses the encoder's feature width.
      output_dim: width of queries and keys.
      shuffle_groups: number of normalisation groups among which keys are permuted; 1 disables the
        permutation.
      temperature_schedule: "constant", "cosine" or "log" (`_temperature.make`).
      temperature_end: temperature after half a period of "cosine".
      temperature_periods: periods of "cosine" in the run: 0.5 falls from `temperature` to
        `temperature_end`, more swing between the two.

    Raises:
      ValueError: if there are not two views of one size, the queue size is not a multiple of the
        batch size, the schedule is refused (`_temperature.make`), or the permuted groups do not
        divide a batch or one device's part of a micro-batch.
    """
    check_views(run, 2)
    slots = count_slots("queue_size", queue_size, run.batch_size)
    if slots < 1:
        raise ValueError(f"queue_size {queue_size}: at least one batch, {run.batch_size}")
    block = shuffle_groups * run.bn_group // 2 if shuffle_groups > 1 else 0
    chunk = run.chunk or run.batch_size
    if block and chunk % block:
        chunk_name = "one device's part of a micro-batch" if run.chunk else "the batch"
        raise ValueError(
            f"shuffle_groups {shuffle_groups} of {run.bn_group // 2} images each do not divide "
            f"{chunk_name}: {chunk} images"
        )
    schedule = _temperature.make(
        temperature,
        run.total_steps,
        schedule=temperature_schedule,
        end=temperature_end,
        periods=temperature_periods,
    )
    widths = (hidden_dim,) * (head_depth - 1) + (output_dim,)
    head = MLP(widths, hidden_norm=False, dense_init="torch", dtype=encoder.dtype)
    networks = Chain(run.bn_group, 2, encoder=encoder, head=head)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        network_key, queue_key = jax.random.split(key)
        params, stats = networks.init(network_key, batch["views"])
        # The keys of a batch fill one slot of every row, so that keys stay on their device.
        noise = jax.random.normal(queue_key, (run.batch_size, slots, output_dim))
        extra = {
            "batch_stats": {"online": stats, "target": stats},
            "target": params,
            "queue": normalise(noise),
        }
        return params, extra

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        stats, views = extra["batch_stats"], batch["views"]
        query, online = networks(params, stats["online"], views[:, :1])
        permuted, restore = _permutation(key, block, views[:, 1:])
        keys, target = networks(extra["target"], stats["target"], permuted)
        outputs = {
            "query": query["head"][:, 0],
            "key": restore(keys["head"][:, 0]),
            "features": query["encoder"],
        }
        return outputs, {"online": online, "target": target}

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del key
        keys = jax.lax.stop_gradient(normalise(outputs["key"]))
        queue = extra["queue"]
        loss, metrics = schedule.apply(
            partial(info_nce, queue=queue.reshape(-1, output_dim)), step, outputs["query"], keys
        )
        metrics |= distance(extra["target"], params)
        queue = queue.at[:, step % slots].set(keys.astype(queue.dtype))
        return loss, (extra | {"queue": queue}, metrics)

    def after_update(params: Tree, extra: Tree, stats: Tree, step: jax.Array) -> Tree:
        del step
        target = moving_average(extra["target"], params, momentum)
        return extra | {"batch_stats": stats, "target": target}

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"]["online"], images)

    layout = {"batch_stats": "replicated", "target": "parameters", "queue": "rows"}
    return Method(init, encode, objective, features, after_update, layout)


def _permutation(key: jax.Array, block: int, images: jax.Array):
    """Permutes images [b, ...] inside blocks.

    Returns:
      (permuted images, function that undoes the permutation for rows [b, d]).
    """
    if not block:
        return images, lambda x: x
    order = jax.random.permutation(key, block)
    inverse = jnp.argsort(order)

    @jax.named_scope("shuffle")
    def apply(x: jax.Array, order: jax.Array) -> jax.Array:
        # Without the constraint, a block that spans devices would be replicated on each of them,
        # and so would all work of the momentum encoder.
        return shard_rows(x.reshape(-1, block, *x.shape[1:])[:, order].reshape(x.shape))

    return apply(images, order), lambda x: apply(x, inverse)
