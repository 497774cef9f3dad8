"""SwAV: swapping assignments between views (Caron et al. 2020, arXiv 2006.09882)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.losses import swav
from ssl_jax.losses.softmax import normalise
from ssl_jax.methods import Batch, Method, Run, Tree
from ssl_jax.methods._multicrop import forward, full_and_local
from ssl_jax.methods._prototypes import frozen_until, init_prototypes, scores
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import MLP


def make(
    encoder: nn.Module,
    run: Run,
    *,
    prototypes: int = 3000,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    freeze_epochs: float = 1.0,
    queue_size: int = 0,
    queue_epoch: float = 15.0,
    hidden_dim: int = 2048,
    output_dim: int = 128,
) -> Method:
    """SwAV (arXiv 2006.09882, section 3): the code of one view, predicted from the others.

    Views of one size pass the network together and share BatchNorm statistics, full-size views
    first; codes are made of the full-size views only. Prototypes are unit vectors.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two full-size views or more, and any number of local crops.
      prototypes: their number, k.
      temperature: of the predictions' softmax.
      epsilon, iterations: of the Sinkhorn-Knopp algorithm.
      freeze_epochs: for which prototypes get no gradient.
      queue_size: earlier embeddings that take part in the codes, for batches much smaller than
        the prototypes; a multiple of the batch, 0 for none.
      queue_epoch: from which the queue takes part.
      hidden_dim, output_dim: widths of the projector.

    Raises:
      ValueError: fewer than two full-size views, or a queue that the batch does not divide.
    """
    full, _ = full_and_local(run)
    slots, rest = divmod(queue_size, run.batch_size)
    if rest:
        raise ValueError(f"queue_size {queue_size} is no multiple of the batch {run.batch_size}")
    epoch = run.num_examples / run.batch_size  # in steps
    head = MLP((hidden_dim, output_dim), dtype=encoder.dtype)
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
        kernel = frozen_until(freeze_epochs * epoch, step, params["prototypes"])
        found = {n: scores(z, kernel) for n, z in outputs.items() if n != "features"}

        def loss(queue: jax.Array | None):
            return swav(
                found["views"],
                local=found.get("local_views"),
                queue=queue,
                temperature=temperature,
                epsilon=epsilon,
                iterations=iterations,
            )

        if not slots:
            value, metrics = loss(None)
            return value, (extra, metrics)
        queue = extra["queue"]
        old = scores(queue.reshape(-1, full, output_dim), kernel)
        use = step >= max(queue_epoch * epoch, slots)  # and not before it is full
        value, metrics = jax.tree.map(lambda a, b: jnp.where(use, a, b), loss(old), loss(None))
        queue = queue.at[:, step % slots].set(normalise(jax.lax.stop_gradient(outputs["views"])))
        return value, (extra | {"queue": queue}, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"], images)

    layout = {"batch_stats": "replicated"} | ({"queue": "rows"} if slots else {})
    return Method(init, encode, objective, features, layout=layout)
