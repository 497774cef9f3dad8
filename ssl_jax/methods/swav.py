"""SwAV: swapping assignments between views (Caron et al. 2020, arXiv 2006.09882)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.losses import swav
from ssl_jax.losses.softmax import normalise
from ssl_jax.methods import Batch, Method, Run, Tree
from ssl_jax.methods._multicrop import forward, full_and_local
from ssl_jax.methods._prototypes import freeze_steps, frozen_until, init_prototypes, scores
from ssl_jax.methods._queue import count_slots
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import MLP
from ssl_jax.optim import turns_from


def make(
    encoder: nn.Module,
    run: Run,
    *,
    prototypes: int = 3000,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    freeze_epochs: float = 1.0,
    skip_frozen: bool = True,
    queue_size: int = 0,
    queue_epoch: float = 15.0,
    hidden_dim: int = 2048,
    output_dim: int = 128,
) -> Method:
    """SwAV (arXiv 2006.09882, section 3): predicts the code of one view from the other views.

    Views of one size pass through the network together and share BatchNorm statistics, full-size
    views first. Codes are computed for the full-size views only. Prototypes are unit vectors.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two or more full-size views and any number of local crops.
      prototypes: number of prototypes, k.
      temperature: temperature of the predictions' softmax.
      epsilon: regularisation of the Sinkhorn-Knopp algorithm.
      iterations: iterations of the Sinkhorn-Knopp algorithm.
      freeze_epochs: epochs at the start in which the prototypes are frozen.
      skip_frozen: the optimizer skips the frozen prototypes: no momentum, count or decay, as in the
        authors' `main_swav.py`. False: it makes updates with gradients of 0.
      queue_size: earlier embeddings that take part in computing codes, for batches much smaller
        than the number of prototypes. A multiple of the batch size; 0 for no queue.
      queue_epoch: epoch from which the queue takes part.
      hidden_dim: width of the projector's hidden layer.
      output_dim: width of the embeddings.

    Raises:
      ValueError: if there are fewer than two full-size views, or the queue size is not a multiple
        of the batch size.
    """
    full, _ = full_and_local(run)
    slots = count_slots("queue_size", queue_size, run.batch_size)
    steps_per_epoch = run.num_examples / run.batch_size
    frozen_steps = freeze_steps(freeze_epochs, run)
    head = MLP((hidden_dim, output_dim), dense_init="torch", dtype=encoder.dtype)
    networks = Chain(run.bn_group, full, encoder=encoder, projector=head)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key, 3)
        params, stats = networks.init(keys[0], batch["views"])
        params["prototypes"] = init_prototypes(keys[1], output_dim, prototypes)
        extra = {"batch_stats": stats}
        if slots:
            noise = jax.random.normal(keys[2], (run.batch_size, slots, full, output_dim))
            extra["queue"] = normalise(noise)
        return params, extra

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del key
        outputs, stats = forward(networks, params, extra["batch_stats"], batch)
        z = {name: out["projector"] for name, out in outputs.items()}
        return z | {"features": outputs["views"]["encoder"]}, stats

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del key
        kernel = frozen_until(frozen_steps, step, params["prototypes"])
        view_scores = {n: scores(z, kernel) for n, z in outputs.items() if n != "features"}

        def loss(queue: jax.Array | None):
            return swav(
                view_scores["views"],
                local=view_scores.get("local_views"),
                queue=queue,
                temperature=temperature,
                epsilon=epsilon,
                iterations=iterations,
            )

        if not slots:
            value, metrics = loss(None)
            return value, (extra, metrics)
        queue = extra["queue"]
        queue_scores = scores(queue.reshape(-1, full, output_dim), kernel)
        # The queue takes part only when it is full.
        use_queue = step >= max(queue_epoch * steps_per_epoch, slots)
        value, metrics = jax.tree.map(
            lambda a, b: jnp.where(use_queue, a, b), loss(queue_scores), loss(None)
        )
        queue = queue.at[:, step % slots].set(normalise(jax.lax.stop_gradient(outputs["views"])))
        return value, (extra | {"queue": queue}, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"], images)

    layout = {"batch_stats": "replicated"} | ({"queue": "rows"} if slots else {})
    turns = {"prototypes": turns_from(frozen_steps)} if skip_frozen and frozen_steps else {}
    return Method(init, encode, objective, features, layout=layout, turns=turns)
