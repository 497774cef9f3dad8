"""Supervised contrastive learning."""

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
    """Supervised contrastive loss: all rows of the anchor's class are its positives.

    The mean over anchors that have a positive; each takes the mean over its positives, outside the
    logarithm, of the cross-entropy over all other rows. With two views and every example its own
    class it is NT-Xent.

    Args:
      z: projections [b, v, d], b v >= 2, of any length (normalised here), types as `nt_xent`.
      label: int [b]; below 0: without a label, its positives are its own other views.
      temperature, transport: as `contrastive.nt_xent`.

    Returns:
      The scalar loss in nats (0 if no anchor has a positive), and metrics: "positives", mean number
      for each anchor.

    Raises:
      ValueError: wrong shapes, rows that do not divide over the devices, or a Python number as
        temperature that is not positive.

    Source: Khosla et al. (arXiv 2004.11362), equation 2.
    """
    if z.ndim != 3 or label.shape != z.shape[:1] or z.shape[0] * z.shape[1] < 2:
        raise ValueError(
            f"z of shape {z.shape}, label of shape {label.shape}: want [b, v, d] and [b], two rows "
            "or more"
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
        _body, rows, shared=scale, transport=transport, dtype=softmax.product_type(z)
    )
    loss = log_sum(terms["all"], scale.shift()) - terms["same"] / jnp.maximum(count, 1)
    anchors = jnp.maximum((count > 0).sum(dtype=count.dtype), 1)
    return jnp.where(count > 0, loss, 0).sum() / anchors, {"positives": count.mean()}


def _body(logits: jax.Array, own: Tree, other: Tree, scale: Scale) -> tuple[Tree, jax.Array]:
    same = own["label"] == other["label"]
    terms = {"all": jnp.exp(logits - scale.shift()), "same": jnp.where(same, logits, 0)}
    return terms, same.astype(logits.dtype)
