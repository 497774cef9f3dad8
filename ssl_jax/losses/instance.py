"""Losses against a memory bank that holds one unit-length row for every image."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from ssl_jax.losses import softmax
from ssl_jax.losses.pairs import Rows, pair_sums
from ssl_jax.losses.softmax import Metrics, Scale, log_sum

Tree = Any

CHUNK_ELEMENTS = 2**23  # elements of the bank that `products` gathers at once: 32 MiB


def instance_softmax(
    z: jax.Array,
    bank: jax.Array,
    index: jax.Array,
    *,
    rows: int,
    temperature: float,
    transport: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """Non-parametric softmax over all images: the mean of -log P(i | v) over a batch of b.

    The bank receives no gradient. The b x n logits are never held in memory at once.

    Args:
      z: embeddings [b, d], any length (normalised here).
      bank: unit rows [n, d]; n must be divisible by the number of devices of the mesh.
      index: int32 [b], the row of the bank that belongs to each embedding.
      rows: number of bank rows that are images, at least 2; the rows after them are padding.
      temperature: as in `contrastive.nt_xent`.
      transport: as in `contrastive.nt_xent`.

    Returns:
      (loss, metrics). The loss is a scalar in nats. Metrics, without gradient: "own_probability",
      mean of P(i | v), and the metrics of `softmax.softmax_metrics`.

    Raises:
      ValueError: as in `contrastive.nt_xent`.

    Source: Wu et al. (arXiv 1805.01978), equation 2.
    """
    bank = lax.stop_gradient(bank)
    (query, scale), (key, _) = (softmax.scaled(x, temperature) for x in (z, bank[index]))
    positive = (query * key).sum(-1)
    threshold = softmax.rank_threshold(query, key, scale, query.dtype)
    place = jnp.arange(len(bank), dtype=jnp.int32)
    # The temperature scales the queries alone, because the bank needs no gradient.
    queries = Rows(query * lax.rsqrt(scale.temperature), index, {"threshold": threshold})
    terms, monitors = pair_sums(
        _softmax_over_images,
        queries,
        Rows(bank.astype(query.dtype), place, {"image": place < rows}),
        shared=scale,
        transport=transport,
    )
    losses = jax.nn.softplus(log_sum(terms, scale.shift()) - positive)
    metrics = softmax.softmax_metrics(monitors, positive, scale, negatives=rows - 1)
    return losses.mean(), {"own_probability": jnp.exp(-lax.stop_gradient(losses)).mean(), **metrics}


def _softmax_over_images(
    logits: jax.Array, own: Tree, other: Tree, scale: Scale
) -> tuple[Tree, Tree]:
    """Calls `softmax.softmax_body` and masks the padding rows of the bank."""
    sums = softmax.softmax_body(logits, own, (), scale)
    return jax.tree.map(lambda x: jnp.where(other["image"], x, 0), sums)


def products(z: jax.Array, bank: jax.Array, index: jax.Array) -> jax.Array:
    """Inner products [b, k] of each row of z with k rows of the bank.

    Under `jax.set_mesh` no row of the bank leaves its device. Every device receives z and the
    indices and multiplies the rows that it holds. Bank rows are gathered for a few rows of z at a
    time, and again for the gradient, so memory is O(b k) instead of O(b k d). The bank receives no
    gradient.

    Args:
      z: [b, d]; b must be divisible by the number of devices of the mesh.
      bank: [n, d]; n must be divisible by the number of devices of the mesh.
      index: int32 [b, k], in [0, n).
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = mesh.axis_names if not mesh.empty and mesh.size > 1 else ()
    examples_per_chunk = max(1, CHUNK_ELEMENTS // (index.shape[1] * bank.shape[1]))

    @jax.checkpoint
    def example(z: jax.Array, index: jax.Array, bank: jax.Array) -> jax.Array:
        bank_rows = jnp.take(bank, index, axis=0, mode="clip")
        # By default, accelerators would round float32 products to 8 or 11 bits.
        return jnp.dot(bank_rows, z, precision=lax.Precision.HIGHEST)

    def local(z: jax.Array, index: jax.Array, bank: jax.Array) -> jax.Array:
        if axes:
            index = index - lax.axis_index(axes) * len(bank)
            # Devices then sum the gradient once, not after every chunk.
            z = lax.pcast(z, axes, to="varying")
        result = lax.map(lambda x: example(*x, bank), (z, index), batch_size=examples_per_chunk)
        if not axes:
            return result
        on_this_device = (index >= 0) & (index < len(bank))
        return lax.psum_scatter(jnp.where(on_this_device, result, 0), axes, tiled=True)

    if axes:
        replicated, by_rows = PartitionSpec(), PartitionSpec(axes)
        local = jax.shard_map(local, in_specs=(replicated, replicated, by_rows), out_specs=by_rows)
    return local(z, index, lax.stop_gradient(bank))


def log_partition(own: jax.Array, noise: jax.Array, *, rows: int) -> jax.Array:
    """Estimates log Z, where Z is the sum of e^logit over all rows of the bank.

    The estimate is one number for the whole batch. The images' own logits count like the noise
    logits, as in the authors' code for equation 8 of Wu et al. (arXiv 1805.01978).

    Args:
      own: logits of the images' own rows [b].
      noise: logits of noise rows [b, k].
      rows: number of rows of the bank.

    Returns:
      Scalar estimate of log Z.
    """
    total = jnp.logaddexp(jax.nn.logsumexp(own), jax.nn.logsumexp(noise))
    return total + math.log(rows / (own.size + noise.size))


def nce(
    own: jax.Array, noise: jax.Array, *, log_z: jax.Array, rows: int
) -> tuple[jax.Array, Metrics]:
    """Noise-contrastive estimation: separates an image's own bank row from k noise rows.

    Let P = e^(logit - log_z), and let the noise be uniform over the rows. The posterior probability
    that a row is the image's own is h = P / (P + k / rows). The loss is the mean over b images of
    -log h(own) plus the sum of -log(1 - h) over the image's noise rows.

    Args:
      own: logits of the images' own rows [b].
      noise: logits of noise rows [b, k].
      log_z: scalar from `log_partition`, treated as a constant.
      rows: number of rows of the bank from which noise is drawn.

    Returns:
      (loss, metrics). The loss is a scalar in nats. Metrics, without gradient: "data_loss" and
      "noise_loss", its two parts; "own_probability", the mean of P, which may exceed 1 because Z is
      only an estimate.

    Source: Wu et al. (arXiv 1805.01978), equations 4, 6 and 7.
    """
    log_z = lax.stop_gradient(log_z)
    shift = log_z - math.log(rows / noise.shape[1])
    data = jax.nn.softplus(shift - own).mean()
    noise = jax.nn.softplus(noise - shift).sum(1).mean()
    metrics = {
        "data_loss": data,
        "noise_loss": noise,
        "own_probability": jnp.exp(own - log_z).mean(),
    }
    return data + noise, lax.stop_gradient(metrics)
