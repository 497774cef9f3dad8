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
    """InfoNCE of queries against keys; the mean over b queries of the cross-entropy of their key.

    Negatives are the rows of the queue, which get no gradient (MoCo v1 and v2), or without one the
    keys of all other examples (MoCo v3; add the loss with the views exchanged, keys held by
    `stop_gradient`).

    Args:
      query, key: [b, d], key i the positive of query i; any length, normalised here.
      temperature, transport: as `contrastive.nt_xent`.
      queue: [k, d], k >= 1, dividing over the devices of the mesh.

    Returns:
      The scalar loss in nats, and the metrics of `softmax.softmax_metrics`, without gradient.

    Raises:
      ValueError: as `contrastive.nt_xent`; b < 2 without a queue.

    Source: van den Oord et al. (arXiv 1807.03748), equation 4; MoCo (arXiv 1911.05722),
    equation 1.
    """
    _check(query, key, least=1 if queue is not None else 2)
    query, key = _alike(query, key)
    rows, columns, positive, scale = _towers(query, key, temperature)
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
        dtype=softmax.product_type(query),
    )
    losses = jax.nn.softplus(log_sum(terms, scale.shift()) - positive)
    return losses.mean(), softmax.softmax_metrics(monitors, positive, scale, negatives=count)


def paired_info_nce(
    x: jax.Array, y: jax.Array, *, temperature: float | jax.Array, transport: str | None = None
) -> tuple[jax.Array, Metrics]:
    """Symmetric InfoNCE of two towers: the mean of x against all y and of y against all x.

    Arguments and errors as `info_nce` without a queue; both sides get gradient. Metrics are the
    means of both directions'.

    Source: CLIP (Radford et al., arXiv 2103.00020), figure 3.
    """
    _check(x, y, least=2)
    x, y = _alike(x, y)
    rows, columns, positive, scale = _towers(x, y, temperature)
    sides = pair_sums(
        softmax.softmax_body,
        rows,
        columns,
        shared=scale,
        both=True,
        transport=transport,
        dtype=softmax.product_type(x),
    )

    def side(terms: Tree, monitors: Tree) -> tuple[jax.Array, Metrics]:
        loss = jax.nn.softplus(log_sum(terms, scale.shift()) - positive).mean()
        return loss, softmax.softmax_metrics(monitors, positive, scale, negatives=len(x) - 1)

    return jax.tree.map(lambda a, b: (a + b) / 2, *(side(*sums) for sums in sides))


def _check(x: jax.Array, y: jax.Array, *, least: int) -> None:
    if x.ndim != 2 or x.shape != y.shape or len(x) < least:
        raise ValueError(
            f"shapes {x.shape} and {y.shape}: want [b, d] twice with b of at least {least}"
        )


def _alike(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both in the type that holds either: a bfloat16 query must not round a float32 key."""
    dtype = jnp.promote_types(x.dtype, y.dtype)
    return x.astype(dtype), y.astype(dtype)


def _towers(
    x: jax.Array, y: jax.Array, temperature: float | jax.Array
) -> tuple[Rows, Rows, jax.Array, Scale]:
    (x_unit, scale), (y_unit, _) = (softmax.scaled(z, temperature) for z in (x, y))
    threshold = softmax.rank_threshold(x_unit, y_unit, scale, softmax.product_type(x))
    positive = (x_unit * y_unit).sum(-1)
    group = jnp.arange(len(x), dtype=jnp.int32)
    aux = {"threshold": threshold}
    rows, columns = (Rows(unit, group, aux) for unit, z in ((x_unit, x), (y_unit, y)))
    return rows, columns, positive, scale
