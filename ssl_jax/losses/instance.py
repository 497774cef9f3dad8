"""Losses that tell an image from all others by a memory bank: a row of unit length for each."""

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

GATHERED = 2**23  # elements of the bank that are picked at once: 32 MiB


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

    The bank gets no gradient. The b x n logits are never held.

    Args:
      z: embeddings [b, d], of any length (normalised here).
      bank: unit rows [n, d], dividing over the devices of the mesh.
      index: which row of the bank is z's own, int32 [b].
      rows: how many rows of the bank are images, at least 2; those after them fill it up.
      temperature, transport: as `contrastive.nt_xent`.

    Returns:
      The scalar loss in nats, and without gradient "own_probability", the mean of P(i | v), with
      the metrics of `softmax.softmax_metrics`.

    Raises:
      ValueError: as `contrastive.nt_xent`.

    Source: Wu et al. (arXiv 1805.01978), equation 2.
    """
    bank = lax.stop_gradient(bank)
    (query, scale), (key, _) = (softmax.scaled(x, temperature) for x in (z, bank[index]))
    positive = (query * key).sum(-1)
    threshold = softmax.rank_threshold(query, key, scale, query.dtype)
    place = jnp.arange(len(bank), dtype=jnp.int32)
    # All of the temperature goes to the queries: nothing is to be derived by the bank.
    queries = Rows(query * lax.rsqrt(scale.temperature), index, {"threshold": threshold})
    terms, monitors = pair_sums(
        _among_images,
        queries,
        Rows(bank.astype(query.dtype), place, {"image": place < rows}),
        shared=scale,
        transport=transport,
    )
    losses = jax.nn.softplus(log_sum(terms, scale.shift()) - positive)
    found = softmax.softmax_metrics(monitors, positive, scale, negatives=rows - 1)
    return losses.mean(), {"own_probability": jnp.exp(-lax.stop_gradient(losses)).mean(), **found}


def _among_images(logits: jax.Array, own: Tree, other: Tree, scale: Scale) -> tuple[Tree, Tree]:
    """`softmax.softmax_body` without the rows that fill the bank up."""
    found = softmax.softmax_body(logits, own, (), scale)
    return jax.tree.map(lambda x: jnp.where(other["image"], x, 0), found)


def products(z: jax.Array, bank: jax.Array, index: jax.Array) -> jax.Array:
    """Inner products [b, k] of each row of z with k rows of the bank.

    Under `jax.set_mesh` no row of the bank leaves its device: z and the indices go to every device,
    which multiplies what it holds. Rows are picked for a few of z's at a time, and again for the
    gradient, so memory is O(b k), not O(b k d). The bank gets no gradient.

    Args:
      z: [b, d], b dividing over the devices of the mesh.
      bank: [n, d], likewise.
      index: int32 [b, k], in [0, n).
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = mesh.axis_names if not mesh.empty and mesh.size > 1 else ()
    together = max(1, GATHERED // (index.shape[1] * bank.shape[1]))

    @jax.checkpoint
    def example(z: jax.Array, index: jax.Array, bank: jax.Array) -> jax.Array:
        picked = jnp.take(bank, index, axis=0, mode="clip")
        # Accelerators would round float32 to 8 or 11 bits by default.
        return jnp.dot(picked, z, precision=lax.Precision.HIGHEST)

    def local(z: jax.Array, index: jax.Array, bank: jax.Array) -> jax.Array:
        if axes:
            index = index - lax.axis_index(axes) * len(bank)
            # So that devices add up the gradient once, not after every few rows.
            z = lax.pcast(z, axes, to="varying")
        found = lax.map(lambda x: example(*x, bank), (z, index), batch_size=together)
        if not axes:
            return found
        held = (index >= 0) & (index < len(bank))
        return lax.psum_scatter(jnp.where(held, found, 0), axes, tiled=True)

    if axes:
        everywhere, by_rows = PartitionSpec(), PartitionSpec(axes)
        local = jax.shard_map(local, in_specs=(everywhere, everywhere, by_rows), out_specs=by_rows)
    return local(z, index, lax.stop_gradient(bank))


def log_partition(own: jax.Array, noise: jax.Array, *, rows: int) -> jax.Array:
    """Estimate of log Z, Z the sum of e^logit over all rows, from logits [b] and [b, k].

    One number for the whole batch, and the images' own logits count among the others: equation 8
    of Wu et al. (arXiv 1805.01978) as their code has it.
    """
    total = jnp.logaddexp(jax.nn.logsumexp(own), jax.nn.logsumexp(noise))
    return total + math.log(rows / (own.size + noise.size))


def nce(
    own: jax.Array, noise: jax.Array, *, log_z: jax.Array, rows: int
) -> tuple[jax.Array, Metrics]:
    """Noise-contrastive estimation: is a row of the bank the image's own, or one of k noise rows?

    With P = e^(logit - log_z) and the noise uniform over the rows, the posterior probability of
    the first is h = P / (P + k / rows). The loss is the mean over b images of -log h(own) and the
    sum of -log(1 - h) over the image's noise.

    Args:
      own: logits of the images' own rows [b].
      noise: logits of noise rows [b, k].
      log_z: [], from `log_partition`; a constant.
      rows: rows of the bank that noise is drawn from.

    Returns:
      The scalar loss in nats, and without gradient its two parts, "data_loss" and "noise_loss", and
      "own_probability", the mean of P, which a constant Z lets exceed 1.

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
