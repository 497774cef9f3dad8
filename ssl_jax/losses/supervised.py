"""Supervised contrastive loss."""

from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.losses import softmax
from ssl_jax.losses.pairs import Rows, pair_sums
from ssl_jax.losses.softmax import Metrics, Scale, log_sum

Tree = Any


def supervised_contrastive(
    z: jax.Array,
    label: jax.Array,
    *,
    temperature: float | jax.Array,
    transport: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """Supervised contrastive loss: all other rows of an anchor's class are its positives.

    Each anchor contributes the cross-entropy of a positive against all other rows, averaged over
    its positives (outside the logarithm). The loss is the mean over all anchors that have a
    positive. With two views and every example in a class of its own, it equals NT-Xent.

    Args:
      z: projections [b, v, d] with b * v >= 2, any length (normalised here), dtypes as in
        `contrastive.nt_xent`.
      label: int [b]. A negative label means "no label": the positives are then the other views of
        the same example.
      temperature: as in `contrastive.nt_xent`.
      transport: how rows reach other devices, as in `contrastive.nt_xent`.

    Returns:
      (loss, metrics). The loss is a scalar in nats, 0 if no anchor has a positive. Metrics:
      "positives", mean number of positives per anchor.

    Raises:
      ValueError: if a shape is wrong, the rows cannot be divided equally among the devices, or the
        temperature is a Python number that is not positive or too low (`contrastive.nt_xent`).

    Source: Khosla et al. (arXiv 2004.11362), equation 2.
    """
    if z.ndim != 3 or label.shape != z.shape[:1] or z.shape[0] * z.shape[1] < 2:
        raise ValueError(
            f"z has shape {z.shape}, label {label.shape}; they must be [b, v, d] and [b] with "
            "b * v at least 2"
        )
    b, v = z.shape[:2]
    unit, scale = softmax.scaled(z, temperature)
    example = jnp.arange(b, dtype=jnp.int32)
    label = jnp.where(label < 0, -1 - example, label)
    rows = Rows(
        unit.reshape(b * v, -1),
        group=jnp.arange(b * v, dtype=jnp.int32),
        aux={"label": jnp.repeat(label, v)},
    )
    terms, count = pair_sums(
        _body, rows, shared=scale, transport=transport, dtype=softmax.product_dtype(z)
    )
    loss = log_sum(terms["all"], scale.shift()) - terms["same"] / jnp.maximum(count, 1)
    anchors = jnp.maximum((count > 0).sum(dtype=count.dtype), 1)
    return jnp.where(count > 0, loss, 0).sum() / anchors, {"positives": count.mean()}


def _body(logits: jax.Array, own: Tree, other: Tree, scale: Scale) -> tuple[Tree, jax.Array]:
    same = own["label"] == other["label"]
    terms = {"all": jnp.exp(logits - scale.shift()), "same": jnp.where(same, logits, 0)}
    return terms, same.astype(logits.dtype)
