"""Contrastive losses on two views of every example: NT-Xent and its variants."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.losses import softmax
from ssl_jax.losses.pairs import Body, Rows, pair_sums
from ssl_jax.losses.softmax import Metrics, Scale, log_sum

Tree = Any


def nt_xent(
    z: jax.Array,
    *,
    temperature: float | jax.Array,
    queue: jax.Array | None = None,
    transport: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """Normalised temperature-scaled cross-entropy over all views of the global batch.

    Each of the 2b views is an anchor once. Its positive is the other view of the same example. Its
    negatives are the 2(b - 1) views of all other examples; an anchor is never compared with itself.
    The loss is the mean over the 2b anchors. SimCLR's own code reports the sum over the two views,
    twice this value.

    Memory grows linearly with b: the 2b x 2b similarities are never held at once.

    Args:
      z: projections [b, 2, d], b >= 2, any length (normalised here; a zero row stays zero). Unit
        rows are multiplied in the dtype of z: bfloat16, float32 or float64. float16 is cast to
        float32. Products are summed in float32 or wider.
      temperature: positive; may be learned. From 0.0149 upwards (0.0015 for float64 z), no
        similarity leaves the range of the dtype (`softmax.lowest_temperature`). A Python number T
        below that is refused. An array cannot be: below, float32 results remain right for anchors
        whose closest negative has a cosine of at least 1 - 110 T; for others, the loss can be too
        high. Clip a learned temperature at 0.0149; at CLIP's limit of 0.01, the cosine is -0.1.
      queue: [k, d], further negatives of every anchor (SimCLR v2's memory, arXiv 2006.10029,
        section 2); receive no gradient. k must be divisible by the number of devices of the mesh.
      transport: "gather", "ring" or None: how rows reach the other devices (`pairs.pair_sums`).

    Returns:
      (loss, metrics). The loss is a scalar in nats. Metrics are those of `softmax.softmax_metrics`,
      without gradient.

    Raises:
      ValueError: if z does not have shape [b, 2, d] with b >= 2, the mesh's devices do not divide
        2b, or the temperature is a Python number that is not positive or too low (see above).

    Source: SimCLR (arXiv 2002.05709), equation 1.
    """
    sums = _sum_over_negatives(softmax.softmax_body, z, temperature, transport, queue=queue)
    # Equals log(e^p + Σe^n) - p without the cancellation that would lose the digits of a small
    # loss.
    negatives = log_sum(sums.terms, sums.scale.shift())
    return jax.nn.softplus(negatives - sums.positive).mean(), sums.metrics


def decoupled(
    z: jax.Array, *, temperature: float | jax.Array, transport: str | None = None
) -> tuple[jax.Array, Metrics]:
    """Decoupled contrastive loss (DCL): NT-Xent without the positive in the denominator.

    The loss can be negative.

    Args:
      z, temperature, transport: as in `nt_xent`.

    Returns:
      (loss, metrics), as in `nt_xent`.

    Raises:
      ValueError: as in `nt_xent`.

    Source: Yeh et al. (arXiv 2110.06848), equation 6, averaged over the 2b anchors.
    """
    sums = _sum_over_negatives(softmax.softmax_body, z, temperature, transport)
    negatives = log_sum(sums.terms, sums.scale.shift())
    return (negatives - sums.positive).mean(), sums.metrics


def debiased(
    z: jax.Array,
    *,
    temperature: float | jax.Array,
    class_prior: float = 0.1,
    transport: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """Debiased contrastive loss: corrects for negatives that belong to the anchor's own class.

    Args:
      z, temperature, transport: as in `nt_xent`.
      class_prior: probability in [0, 1) that a negative has the anchor's class (tau+ in the paper).
        0 gives NT-Xent.

    Returns:
      (loss, metrics), as in `nt_xent`.

    Raises:
      ValueError: as in `nt_xent`, or class_prior is outside [0, 1).

    Source: Chuang et al. (arXiv 2007.00224), equations 7 and 8 with M = 1.
    """
    sums = _sum_over_negatives(softmax.softmax_body, z, temperature, transport)
    negatives = log_sum(sums.terms, sums.scale.shift())
    return _debiased_loss(sums, negatives, temperature, class_prior), sums.metrics


def hard_negatives(
    z: jax.Array,
    *,
    temperature: float | jax.Array,
    concentration: float = 1.0,
    class_prior: float = 0.1,
    transport: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """Debiased contrastive loss with negatives weighted by e^(concentration * similarity / tau).

    Args:
      z, temperature, class_prior, transport: as in `debiased`.
      concentration: weight of harder negatives, at least 0 (beta in the paper). 0 gives `debiased`.
        The lowest temperature is 1 + beta times that of `nt_xent`, 0.0149 (1 + beta) in float32.

    Returns:
      (loss, metrics), as in `nt_xent`.

    Raises:
      ValueError: as in `debiased`, or the concentration is negative.

    Source: Robinson et al. (arXiv 2010.04592), section 3 and figure 2. The weights carry gradient,
    as in the authors' code.
    """
    if not concentration >= 0:
        raise ValueError(f"concentration must be at least 0, got {concentration}")
    sums = _sum_over_negatives(_hard_body, z, temperature, transport, concentration)
    weighted = log_sum(sums.terms["weighted"], sums.scale.shift(1 + concentration))
    weights = log_sum(sums.terms["weights"], sums.scale.shift(concentration))
    negatives = weighted - weights + jnp.log(sums.negatives)
    return _debiased_loss(sums, negatives, temperature, class_prior), sums.metrics


class _NegativeSums(NamedTuple):
    """Sums over the negatives of the 2b anchors, and the numbers needed to combine them."""

    positive: jax.Array  # logit of each anchor's positive, [2b]
    terms: Tree  # sums of the body's terms, arrays [2b]
    negatives: int  # number of negatives per anchor
    scale: Scale
    metrics: Metrics


def _sum_over_negatives(
    body: Body,
    z: jax.Array,
    temperature: float | jax.Array,
    transport: str | None,
    concentration: float = 0,
    queue: jax.Array | None = None,
) -> _NegativeSums:
    """Sums the terms of the body over the negatives of every anchor."""
    if z.ndim != 3 or z.shape[0] < 2 or z.shape[1] != 2:
        raise ValueError(f"z has shape {z.shape}; it must be [b, 2, d] with b at least 2")
    unit, scale = softmax.scaled(z, temperature, concentration)
    dtype = softmax.product_dtype(z)
    positive = jnp.repeat((unit[:, 0] * unit[:, 1]).sum(-1), 2)
    threshold = softmax.rank_threshold(unit[:, 0], unit[:, 1], scale, dtype)
    rows = Rows(
        unit.reshape(positive.size, -1),
        group=jnp.repeat(jnp.arange(len(z), dtype=jnp.int32), 2),
        aux={"threshold": jnp.repeat(threshold, 2)},
    )
    options = {"shared": scale, "transport": transport, "dtype": dtype}
    terms, monitors = pair_sums(body, rows, **options)
    count = positive.size - 2
    if queue is not None:
        queue_sums = pair_sums(body, *softmax.against_queue(rows, queue, temperature), **options)
        terms, monitors = jax.tree.map(jnp.add, (terms, monitors), queue_sums)
        count += len(queue)
    metrics = softmax.softmax_metrics(monitors, positive, scale, negatives=count)
    return _NegativeSums(positive, terms, count, scale, metrics)


def _hard_body(logits: jax.Array, own: Tree, other: Tree, scale: Scale) -> tuple[Tree, Tree]:
    """Body for `pair_sums`: weighted exponentials and their weights e^(beta * logit)."""
    del other
    beta = scale.concentration
    terms = {
        "weighted": jnp.exp((1 + beta) * logits - scale.shift(1 + beta)),
        "weights": jnp.exp(beta * logits - scale.shift(beta)),
    }
    return terms, softmax.monitors(logits, own, scale)


def _debiased_loss(
    sums: _NegativeSums, negatives: jax.Array, temperature: float | jax.Array, class_prior: float
) -> jax.Array:
    """Mean loss after removing the share of the anchor's own class from the log-sum `negatives`."""
    if not 0 <= class_prior < 1:
        raise ValueError(f"class_prior must be in [0, 1), got {class_prior}")
    shift = sums.scale.shift()
    own_class = sums.negatives * class_prior * jnp.exp(sums.positive - shift)
    corrected_sum = (jnp.exp(negatives - shift) - own_class) / (1 - class_prior)
    # The estimate can fall below the smallest possible sum of exponentials (their equation 7).
    lower_bound = sums.negatives * jnp.exp(-1 / temperature - shift)
    corrected = log_sum(jnp.maximum(corrected_sum, lower_bound), shift)
    return jax.nn.softplus(corrected - sums.positive).mean()
