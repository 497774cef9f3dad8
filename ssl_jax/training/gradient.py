"""Computes the gradient of the whole batch's loss in one pass, or micro-batch by micro-batch.

Both return value_and_grad(encode, objective, params, batch) ->
((loss, aux, outputs, stats), gradient, metrics), where encode(params, batch) -> (outputs, stats)
works per example and objective(params, outputs) -> (loss, aux) couples the examples.
"""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssl_jax import parallel
from ssl_jax.methods import Batch, Tree


def whole_batch(encode, objective, params: Tree, batch: Batch):
    """Computes loss and gradient in one pass over the batch."""

    def loss_fn(params):
        outputs, stats = encode(params, batch)
        loss, aux = objective(params, outputs)
        return loss, (aux, outputs, stats)

    (loss, (aux, outputs, stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    return (loss, aux, outputs, stats), grads, {}


def micro_batched(mesh: Mesh, microbatch: int, noise_scale: bool):
    """Returns the function that computes the same loss and gradient with less memory.

    Only the activations of one micro-batch are in memory. The function encodes every micro-batch
    without gradient, takes the objective's gradient with respect to all outputs, and encodes each
    micro-batch again under its vjp.

    Args:
      mesh: the devices.
      microbatch: examples encoded at once over all devices; divides the batch.
      noise_scale: also measure the gradient's noise. Devices then sum their gradients after every
        micro-batch instead of once.

    Source: GradCache (arXiv 2101.06983), section 3.
    """

    def split(x: jax.Array) -> jax.Array:
        # A chunk takes the same local rows of every device, so that no example changes its device.
        chunks = x.shape[0] // microbatch
        x = x.reshape(mesh.size, chunks, -1, *x.shape[1:]).swapaxes(0, 1)
        x = x.reshape(chunks, microbatch, *x.shape[3:])
        return jax.lax.with_sharding_constraint(
            x, NamedSharding(mesh, PartitionSpec(None, parallel.ROWS))
        )

    def merge(x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], mesh.size, -1, *x.shape[2:]).swapaxes(0, 1)
        x = x.reshape(-1, *x.shape[3:])
        return jax.lax.with_sharding_constraint(x, parallel.rows(mesh))

    def value_and_grad(encode, objective, params: Tree, batch: Batch):
        chunks = jax.tree.map(split, batch)
        outputs, stats = jax.lax.map(lambda chunk: encode(params, chunk), chunks)
        outputs = jax.tree.map(merge, outputs)
        # Running statistics move linearly with a chunk's statistics, so their mean is exact.
        stats = jax.tree.map(lambda s: s.mean(0), stats)
        smooth, discrete = _partition(outputs)

        def objective_of_smooth(params, smooth):
            return objective(params, smooth | discrete)

        (loss, aux), (grads, cotangents) = jax.value_and_grad(
            objective_of_smooth, argnums=(0, 1), has_aux=True
        )(params, smooth)

        def accumulate(carry, chunk_and_cotangent):
            total, squares = carry
            chunk, cotangent = chunk_and_cotangent
            _, vjp = jax.vjp(lambda p: _partition(encode(p, chunk)[0])[0], params)
            (part,) = vjp(cotangent)
            if noise_scale:
                squares += optax.tree.norm(part, squared=True)
            return (jax.tree.map(jnp.add, total, part), squares), None

        start = (jax.tree.map(jnp.zeros_like, params), jnp.zeros(()))
        (total, squares), _ = jax.lax.scan(
            accumulate, start, (chunks, jax.tree.map(split, cotangents))
        )
        measured = {}
        if noise_scale:
            measured = _gradient_noise(total, squares, microbatch, len(batch["index"]))
        return (loss, aux, outputs, stats), jax.tree.map(jnp.add, grads, total), measured

    return value_and_grad


def _partition(outputs: dict) -> tuple[dict, dict]:
    """Returns (floating-point outputs, which have a gradient, other outputs)."""
    smooth = {n: x for n, x in outputs.items() if jnp.issubdtype(x.dtype, jnp.inexact)}
    return smooth, {n: x for n, x in outputs.items() if n not in smooth}


def _gradient_noise(total: Tree, squares: jax.Array, small: int, big: int) -> dict[str, jax.Array]:
    """Estimates noise and signal of the gradient without bias from the micro-batches' gradients.

    Args:
      total: sum of the micro-batches' gradients.
      squares: sum of the squared norms of the micro-batches' gradients.
      small: number of examples of a micro-batch.
      big: number of examples of the batch.

    Returns:
      {"gradient_noise": trace of the covariance of one example's gradient, "gradient_signal":
      squared norm of the true gradient}, or {} for a single micro-batch. The signal can be negative
      by chance. The estimates of one step are rough: the noise scale is the ratio of their means
      over many steps.

    Source: McCandlish et al. (arXiv 1812.06162), appendix A.1. A micro-batch's gradient is its part
    of the whole batch's gradient, so the objective's coupling of examples is treated as fixed.
    """
    chunks = big // small
    if chunks == 1:
        return {}
    big_square = optax.tree.norm(total, squared=True)
    small_square = chunks * squares
    return {
        "gradient_noise": (small_square - big_square) * big / (chunks - 1),
        "gradient_signal": (chunks * big_square - small_square) / (chunks - 1),
    }
