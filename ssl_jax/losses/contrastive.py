"""Contrastive losses on two views of every example: NT-Xent and its kin."""

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

    Each of the 2b views is an anchor once: its positive is the other view of its example, its
    negatives are the 2(b - 1) views of all other examples; it never meets itself. The loss is the
    mean over the 2b anchors. SimCLR's own code reports the sum over the two views, twice this.

    Neither the 2b x 2b similarities nor anything else that grows faster than b is ever held.

    Args:
      z: projections [b, 2, d], b >= 2, of any length (normalised here; a zero row stays zero).
        Unit rows are multiplied in z's type, bfloat16, float32 or float64 (float16 is taken to
        float32), and summed in float32 at least.
      temperature: > 0; from 0.0148 on no similarity leaves float32's range. May be learned.
      queue: [k, d], further negatives of every anchor, which get no gradient (SimCLR v2's memory,
        arXiv 2006.10029, section 2); k divides over the devices of the mesh.
      transport: "gather", "ring" or None, how rows reach the other devices (`pairs.pair_sums`).

    Returns:
      The scalar loss in nats, and the metrics of `softmax.softmax_metrics`, without gradient.

    Raises:
      ValueError: wrong shape, b < 2, 2b not divisible by the devices of the mesh, or a Python
        number as temperature that is not positive.

    Source: SimCLR (arXiv 2002.05709), equation 1.
    """
    found = _over_negatives(softmax.softmax_body, z, temperature, transport, queue=queue)
    # log(e^p + Σe^n) - p, without the cancellation that eats a small loss.
    negatives = log_sum(found.terms, found.scale.shift())
    return jax.nn.softplus(negatives - found.positive).mean(), found.metrics


def decoupled(
    z: jax.Array, *, temperature: float | jax.Array, transport: str | None = None
) -> tuple[jax.Array, Metrics]:
    """Decoupled contrastive loss (DCL): NT-Xent without the positive in the denominator.

    Arguments, metrics and errors as `nt_xent`. The loss may be negative.

    Source: Yeh et al. (arXiv 2110.06848), equation 6, averaged over the 2b anchors.
    """
    found = _over_negatives(softmax.softmax_body, z, temperature, transport)
    negatives = log_sum(found.terms, found.scale.shift())
    return (negatives - found.positive).mean(), found.metrics


def debiased(
    z: jax.Array,
    *,
    temperature: float | jax.Array,
    class_prior: float = 0.1,
    transport: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """Debiased contrastive loss: negatives corrected for those of the anchor's own class.

    Arguments, metrics and errors as `nt_xent`, and
      class_prior: tau+, the probability that a negative is of the anchor's class, in [0, 1);
        0 gives NT-Xent.

    Source: Chuang et al. (arXiv 2007.00224), equations 7 and 8 with M = 1.
    """
    found = _over_negatives(softmax.softmax_body, z, temperature, transport)
    negatives = log_sum(found.terms, found.scale.shift())
    return _corrected(found, negatives, temperature, class_prior), found.metrics


def hard_negatives(
    z: jax.Array,
    *,
    temperature: float | jax.Array,
    concentration: float = 1.0,
    class_prior: float = 0.1,
    transport: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """Debiased contrastive loss with negatives weighted by e^(concentration * similarity / tau).

    Arguments, metrics and errors as `debiased`, and
      concentration: beta >= 0, how much harder negatives count; 0 gives `debiased`. No similarity
        leaves float32's range from a temperature of 0.0148 (1 + beta) on.

    Source: Robinson et al. (arXiv 2010.04592), section 3 and figure 2. Weights carry gradient, as
    in the authors' code.
    """
    if not concentration >= 0:
        raise ValueError(f"concentration {concentration}: want 0 or more")
    found = _over_negatives(_hard_body, z, temperature, transport, concentration)
    weighted = log_sum(found.terms["weighted"], found.scale.shift(1 + concentration))
    weights = log_sum(found.terms["weights"], found.scale.shift(concentration))
    negatives = weighted - weights + jnp.log(found.negatives)
    return _corrected(found, negatives, temperature, class_prior), found.metrics


class _Found(NamedTuple):
    """What a loss over views needs of its pairs: arrays [2b], scalars, metrics."""

    positive: jax.Array
    terms: Tree
    negatives: int
    scale: Scale
    metrics: Metrics


def _over_negatives(
    body: Body,
    z: jax.Array,
    temperature: float | jax.Array,
    transport: str | None,
    concentration: float = 0,
    queue: jax.Array | None = None,
) -> _Found:
    """Sums the body over the negatives of every anchor."""
    if z.ndim != 3 or z.shape[0] < 2 or z.shape[1] != 2:
        raise ValueError(f"z of shape {z.shape}: want [b, 2, d] with b of at least 2")
    unit, scale = softmax.scaled(z, temperature, concentration)
    dtype = softmax.product_type(z)
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
        more = pair_sums(body, *softmax.against_queue(rows, queue, temperature), **options)
        terms, monitors = jax.tree.map(jnp.add, (terms, monitors), more)
        count += len(queue)
    metrics = softmax.softmax_metrics(monitors, positive, scale, negatives=count)
    return _Found(positive, terms, count, scale, metrics)


def _hard_body(logits: jax.Array, own: Tree, other: Tree, scale: Scale) -> tuple[Tree, Tree]:
    del other
    beta = scale.concentration
    terms = {
        "weighted": jnp.exp((1 + beta) * logits - scale.shift(1 + beta)),
        "weights": jnp.exp(beta * logits - scale.shift(beta)),
    }
    return terms, softmax.monitors(logits, own, scale)


def _corrected(
    found: _Found, negatives: jax.Array, temperature: float | jax.Array, class_prior: float
) -> jax.Array:
    """Mean loss with the log-sum `negatives` freed from the share of the anchor's own class."""
    if not 0 <= class_prior < 1:
        raise ValueError(f"class_prior {class_prior}: want a number in [0, 1)")
    shift = found.scale.shift()
    own_class = found.negatives * class_prior * jnp.exp(found.positive - shift)
    total = (jnp.exp(negatives - shift) - own_class) / (1 - class_prior)
    # The estimate may fall below what a sum of exponentials can be (their equation 7).
    least = found.negatives * jnp.exp(-1 / temperature - shift)
    corrected = log_sum(jnp.maximum(total, least), shift)
    return jax.nn.softplus(corrected - found.positive).mean()
