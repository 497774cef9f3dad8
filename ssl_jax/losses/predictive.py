"""InfoNCE of contrastive predictive coding: predictions against all encodings of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from ssl_jax.losses import softmax
from ssl_jax.losses.pairs import Rows, pair_sums
from ssl_jax.losses.softmax import Metrics, Scale, Tree

# Largest lead of a negative over the positive, in nats, whose exp is summed. In float32, sums over
# 2^40 pairs and their cotangents stay in range up to this lead.
LARGEST_LEAD = 40.0


def predictive_info_nce(
    predictions: jax.Array,
    targets: jax.Array,
    positive: np.ndarray | jax.Array,
    *,
    groups: jax.Array | None = None,
    scale: float = 1.0,
    transport: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """Returns the mean over all predictions of the cross-entropy of the predicted position.

    The score of a prediction p and a target t is the inner product scale p·t, without
    normalisation: with p = W_k c, this is the log-bilinear score of the paper. The candidates of a
    prediction are all targets of the global batch: the predicted position, the other positions of
    the same example, and all positions of the other examples. With `groups`, only targets of
    examples of the same group are candidates, for example those of the same speaker.

    The number of dimensions of the positions does not matter: they are the patches of an image or
    the times of a recording, and the predictions are those of all contexts and all steps.

    The value is exact as long as no negative's score exceeds the positive's by more than 40 nats.
    Larger leads count as 40 nats in the sum of exponentials, and the mean of the parts beyond 40
    nats is added. So the loss grows with the lead, and the gradient keeps its size.

    Args:
      predictions: [b, r, d].
      targets: [b, p, d], p >= 2. Receives gradient, too.
      positive: int [r], the position in [0, p) that each prediction of an example predicts, or
        int [b, r] if examples differ.
      groups: int32 [b], the group of each example; None compares with all targets. With
        `jnp.arange(b)`, the candidates are the positions of the same example.
      scale: factor of the scores, above 0.
      transport: as in `contrastive.nt_xent`.

    Returns:
      (loss, metrics). The loss is a scalar in nats. The metrics are "contrastive_accuracy",
      "contrastive_chance" and "contrastive_top5" of `softmax.softmax_metrics`, without gradient.

    Raises:
      ValueError: if the shapes do not fit, a position does not exist, or the scale is not positive.

    Sources: van den Oord et al. (arXiv 1807.03748), equations 3 and 4; Hénaff et al.
    (arXiv 1905.09272), equation 3.
    """
    if not isinstance(positive, jax.Array):
        positive = np.asarray(positive, np.int32)
    _check(predictions, targets, positive, scale)
    b, r, d = predictions.shape
    p = targets.shape[1]
    place = jnp.broadcast_to(jnp.asarray(positive, jnp.int32), (b, r))
    narrow = jnp.promote_types(predictions.dtype, targets.dtype)
    dtype = softmax.product_dtype(jnp.zeros((), narrow))
    wide = jnp.promote_types(narrow, jnp.float32)
    x, y = scale * predictions.astype(wide), targets.astype(wide)
    # Within an example, so within a device.
    y_positive = y[:, positive] if positive.ndim == 1 else _along(y, place)
    example = jnp.arange(b, dtype=jnp.int32)[:, None] * p
    score = (x * y_positive).sum(-1)
    aux = {"score": lax.stop_gradient(score), "threshold": _threshold(x, y_positive, dtype)}
    rows, group, aux = jax.tree.map(
        lambda a: a.reshape(b * r, *a.shape[2:]), (x, example + place, aux)
    )
    columns = Rows(y.reshape(b * p, d), jnp.arange(b * p, dtype=jnp.int32))
    body = _body
    if groups is not None:
        of_example = groups.astype(jnp.int32)
        aux["group"] = jnp.repeat(of_example, r)
        columns = columns._replace(aux={"group": jnp.repeat(of_example, p)})
        body = _body_within_groups
    (leads, excess), (closer, beyond, count) = pair_sums(
        body, Rows(rows, group, aux), columns, transport=transport, dtype=dtype
    )
    # Leads are relative to the positive's score. This difference is 0, but has a gradient.
    gain = score.reshape(-1) - aux["score"]
    losses = jax.nn.softplus(softmax.log_sum(leads, jnp.zeros((), wide)) - gain)
    losses += excess / lax.stop_gradient(jnp.maximum(beyond, 1))
    closer = lax.stop_gradient(closer)
    return losses.mean(), {
        "contrastive_accuracy": (closer < 1).mean(dtype=wide),
        "contrastive_chance": (1 / (1 + lax.stop_gradient(count))).mean(dtype=wide),
        "contrastive_top5": (closer < 5).mean(dtype=wide),
    }


def _body(logits: jax.Array, own: Tree, other: Tree, shared: Tree) -> tuple[Tree, Tree]:
    """Body for `pair_sums`: exp of the lead over the positive, limited, and the part beyond it.

    The monitors count the negatives with a lead, those whose lead is beyond the limit, and all.
    """
    del other, shared
    lead = logits - own["score"]
    terms = jnp.exp(jnp.minimum(lead, LARGEST_LEAD)), jnp.maximum(lead - LARGEST_LEAD, 0)
    is_closer, is_beyond = logits >= own["threshold"], lead > LARGEST_LEAD
    counts = is_closer, is_beyond, jnp.ones_like(logits)
    return terms, jax.tree.map(lambda count: count.astype(logits.dtype), counts)


def _body_within_groups(logits: jax.Array, own: Tree, other: Tree, shared: Tree) -> Tree:
    """`_body` that counts only pairs of one group."""
    same = own["group"] == other["group"]
    return jax.tree.map(lambda term: jnp.where(same, term, 0), _body(logits, own, other, shared))


def _along(y: jax.Array, place: jax.Array) -> jax.Array:
    """Returns the rows `place` [b, r] of y [b, p, d], example by example."""
    return jnp.take_along_axis(y, place[..., None], axis=1)


def _threshold(x: jax.Array, y: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Returns the score from which a negative counts as close, for rows of any length [..., d]."""
    x, y = lax.stop_gradient((x, y))
    lengths = jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(y, axis=-1)
    tiny = jnp.finfo(x.dtype).tiny
    largest = 1 / jnp.maximum(lengths, tiny)  # each row has its own temperature
    return softmax.rank_threshold(x, y, Scale(largest, jnp.zeros((), x.dtype)), dtype)


def _check(
    predictions: jax.Array, targets: jax.Array, positive: np.ndarray | jax.Array, scale: float
) -> None:
    if predictions.ndim != 3 or targets.ndim != 3 or predictions.shape[::2] != targets.shape[::2]:
        raise ValueError(
            f"predictions and targets have shapes {predictions.shape} and {targets.shape}; they "
            "must be [b, r, d] and [b, p, d]"
        )
    (b, r), p = predictions.shape[:2], targets.shape[1]
    valid = positive.shape in ((r,), (b, r)) and r > 0 and p > 1
    if valid and isinstance(positive, np.ndarray):  # the values of a traced array are unknown
        valid = positive.min() >= 0 and positive.max() < p
    if not valid:
        raise ValueError(
            f"positive must name one of {p} positions (at least 2) for each of {r} predictions, "
            f"got an array of shape {positive.shape}"
        )
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
