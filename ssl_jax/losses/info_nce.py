"""Contrastive losses between two sets of embeddings: queries and keys, or two towers."""

from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.losses import softmax
from ssl_jax.losses.pairs import Rows, pair_sums
from ssl_jax.losses.softmax import Metrics, Scale, log_sum

Tree = Any


def info_nce(
    query: jax.Array,
    key: jax.Array,
    *,
    temperature: float | jax.Array,
    queue: jax.Array | None = None,
    transport: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """InfoNCE of queries against keys: the mean over b queries of the cross-entropy of their key.

    With a queue (MoCo v1 and v2), the negatives of a query are the rows of the queue. Without one,
    they are the keys of all other examples. For MoCo v3, call this function twice with the views
    exchanged and `stop_gradient` on the keys, and add the losses.

    Args:
      query: [b, d], any length (normalised here).
      key: [b, d], any length (normalised here). Row i is the positive of query i.
      temperature: as in `contrastive.nt_xent`.
      queue: [k, d], k >= 1; k must be divisible by the number of devices of the mesh. Receives no
        gradient.
      transport: as in `contrastive.nt_xent`.

    Returns:
      (loss, metrics). The loss is a scalar in nats. Metrics are those of `softmax.softmax_metrics`,
      without gradient.

    Raises:
      ValueError: as in `contrastive.nt_xent`, or if b < 2 without a queue.

    Source: van den Oord et al. (arXiv 1807.03748), equation 4; MoCo (arXiv 1911.05722),
    equation 1.
    """
    _check(query, key, min_rows=1 if queue is not None else 2)
    query, key = _to_common_dtype(query, key)
    rows, columns, positive, scale = _tower_rows(query, key, temperature)
    if queue is None:
        count = len(key) - 1
    else:
        rows, columns = softmax.against_queue(rows, queue, temperature)
        count = len(queue)
    terms, monitors = pair_sums(
        softmax.softmax_body,
        rows,
        columns,
        shared=scale,
        transport=transport,
        dtype=softmax.product_dtype(query),
    )
    losses = jax.nn.softplus(log_sum(terms, scale.shift()) - positive)
    return losses.mean(), softmax.softmax_metrics(monitors, positive, scale, negatives=count)


def paired_info_nce(
    x: jax.Array, y: jax.Array, *, temperature: float | jax.Array, transport: str | None = None
) -> tuple[jax.Array, Metrics]:
    """Symmetric InfoNCE of two towers: the mean of x against all y and of y against all x.

    Args:
      x: [b, d], b >= 2, embeddings of the first tower, any length (normalised here).
      y: [b, d], embeddings of the second tower. Row i is the positive of row i of x.
      temperature: as in `contrastive.nt_xent`.
      transport: as in `contrastive.nt_xent`.

    Returns:
      (loss, metrics), as in `info_nce`; both are means over the two directions. Both towers receive
      gradient.

    Raises:
      ValueError: as in `info_nce`.

    Source: CLIP (Radford et al., arXiv 2103.00020), figure 3.
    """
    _check(x, y, min_rows=2)
    x, y = _to_common_dtype(x, y)
    rows, columns, positive, scale = _tower_rows(x, y, temperature)
    sides = pair_sums(
        softmax.softmax_body,
        rows,
        columns,
        shared=scale,
        column_sums=True,
        transport=transport,
        dtype=softmax.product_dtype(x),
    )

    def side(terms: Tree, monitors: Tree) -> tuple[jax.Array, Metrics]:
        loss = jax.nn.softplus(log_sum(terms, scale.shift()) - positive).mean()
        return loss, softmax.softmax_metrics(monitors, positive, scale, negatives=len(x) - 1)

    return jax.tree.map(lambda a, b: (a + b) / 2, *(side(*sums) for sums in sides))


def _check(x: jax.Array, y: jax.Array, *, min_rows: int) -> None:
    if x.ndim != 2 or x.shape != y.shape or len(x) < min_rows:
        raise ValueError(
            f"embeddings have shapes {x.shape} and {y.shape}; both must be [b, d] with "
            f"b at least {min_rows}"
        )


def _to_common_dtype(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Casts both arrays to their common dtype: a bfloat16 query must not round a float32 key."""
    dtype = jnp.promote_types(x.dtype, y.dtype)
    return x.astype(dtype), y.astype(dtype)


def _tower_rows(
    x: jax.Array, y: jax.Array, temperature: float | jax.Array
) -> tuple[Rows, Rows, jax.Array, Scale]:
    """Scales both sides and computes their positives.

    Returns:
      (rows, columns, logits of the positives [b], scale), for `pair_sums`.
    """
    (x_unit, scale), (y_unit, _) = (softmax.scaled(z, temperature) for z in (x, y))
    threshold = softmax.rank_threshold(x_unit, y_unit, scale, softmax.product_dtype(x))
    positive = (x_unit * y_unit).sum(-1)
    group = jnp.arange(len(x), dtype=jnp.int32)
    aux = {"threshold": threshold}
    rows, columns = (Rows(unit, group, aux) for unit, z in ((x_unit, x), (y_unit, y)))
    return rows, columns, positive, scale
