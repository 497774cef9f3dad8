"""Shared parts of the softmax losses: unit rows, a shift that prevents overflow, and metrics."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssl_jax.losses.tiles import Rows

Metrics = dict[str, jax.Array]
Tree = Any

# Distances of shifted logits from the magnitude at which exp underflows, 87.3 in float32. At the
# bottom, 7 are enough for rows that rounding made longer than 1. At the top, the cotangent of a sum
# must not underflow: it divides by up to 2^20 terms and by 2^20 rows, each a factor of e^14, and 4
# more are kept. The sum itself then cannot overflow.
_BOTTOM_MARGIN, _TOP_MARGIN = 7, 32


def normalise(z: jax.Array) -> jax.Array:
    """Scales rows [..., d] to unit length, in float32 or wider; a zero row stays zero.

    Each row is first divided by its largest element, because the square of a huge element
    overflows. The result does not depend on this divisor, so the gradient does not either.
    """
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    largest = lax.stop_gradient(jnp.abs(z).max(-1, keepdims=True))
    z = z / jnp.where(largest > 0, largest, 1)
    squares = jnp.square(z).sum(-1, keepdims=True)
    return z * lax.rsqrt(jnp.where(squares > 0, squares, 1))


def product_dtype(z: jax.Array) -> Any:
    """Dtype in which similarities of z are multiplied. The range of float16 is too small."""
    return z.dtype if z.dtype == jnp.bfloat16 else jnp.promote_types(z.dtype, jnp.float32)


def _window(dtype: Any) -> tuple[int, int]:
    """Returns the largest magnitudes of shifted logits: (below 0, above 0).

    They are (80, 55) in float32 and (701, 676) in float64.
    """
    underflow = math.floor(-math.log(float(jnp.finfo(dtype).tiny)))
    return underflow - _BOTTOM_MARGIN, underflow - _TOP_MARGIN


def lowest_temperature(dtype: Any, concentration: float = 0) -> float:
    """Returns the lowest temperature at which no similarity leaves the range of a dtype.

    Logits span 2 (1 + concentration) / temperature, and exponentials of logits share one shift
    (`Scale.shift`). The span must fit in the window between underflow and overflow: 135 in float32,
    1377 in float64. The lowest temperature is 0.01482 in float32 and 0.001453 in float64.

    Args:
      dtype: dtype of the logits: float32 or float64.
      concentration: see `Scale`.
    """
    return 2 * (1 + concentration) / sum(_window(dtype))


class Scale(NamedTuple):
    """Scalars that the bodies need, without gradient. Logits are at most 1 / temperature."""

    temperature: jax.Array
    concentration: jax.Array
    """Concentration of `contrastive.hard_negatives`; 0 for all other losses."""

    def shift(self, power: float | jax.Array = 1) -> jax.Array:
        """Constant to subtract from power * logits before exp.

        The constant is the same for all pairs, so that sums of exponentials can be added over tiles
        and devices. It is the largest possible logit, or less if exp of the smallest would
        otherwise underflow. Below `lowest_temperature`, exp of small logits underflows.
        """
        below, above = _window(self.temperature.dtype)
        top = power / self.temperature
        return top - jnp.clip(2 * top - below, 0, above)


def scaled(
    z: jax.Array, temperature: float | jax.Array, concentration: float = 0
) -> tuple[jax.Array, Scale]:
    """Scales rows [..., d] so that their inner products are logits.

    Args:
      z: embeddings [..., d], any length.
      temperature: positive; its gradient flows through the rows.
      concentration: see `Scale`.

    Returns:
      (rows [..., d] in float32 or wider, scale of their logits).

    Raises:
      ValueError: if the temperature is a Python number that is not positive, or below
        `lowest_temperature`. Arrays, such as learned temperatures, are not checked.
    """
    unit = normalise(z)
    if isinstance(temperature, int | float | np.number):
        _check_temperature(temperature, unit.dtype, concentration)
    temperature = jnp.asarray(temperature, unit.dtype)
    scalars = (temperature, jnp.asarray(concentration, unit.dtype))
    return unit * lax.rsqrt(temperature), Scale(*map(lax.stop_gradient, scalars))


def _check_temperature(temperature: float, dtype: Any, concentration: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    lowest = lowest_temperature(dtype, concentration)
    if temperature < lowest:
        valid = math.ceil(lowest * 1e4) / 1e4  # rounded up, so that the number in the text is valid
        weighting = f" with concentration {concentration:g}" if concentration else ""
        raise ValueError(
            f"temperature must be at least {valid:g}{weighting}, got {temperature:g}: below it, "
            f"exponentials of similarities leave the range of {jnp.dtype(dtype)}, and the loss "
            "would be wrong"
        )


def against_queue(
    rows: Rows, queue: jax.Array, temperature: float | jax.Array
) -> tuple[Rows, Rows]:
    """Returns rows and columns for the logits of `scaled` rows against a queue.

    The rows already contain 1/√T. They are scaled by 1/√T again, and the queue keeps unit length.

    Args:
      rows: rows from `scaled`.
      queue: [k, d], k >= 1, any length (normalised here); receives no gradient.
      temperature: the temperature given to `scaled`.

    Raises:
      ValueError: if the queue does not have shape [k, d].
    """
    d = rows.x.shape[-1]
    if queue.ndim != 2 or queue.shape[1] != d or not len(queue):
        raise ValueError(f"queue has shape {queue.shape}; it must be [k, {d}] with k at least 1")
    scaled_rows = rows.x * lax.rsqrt(jnp.asarray(temperature, rows.x.dtype))
    return Rows(scaled_rows, aux=rows.aux), Rows(lax.stop_gradient(normalise(queue)))


def rank_threshold(x: jax.Array, y: jax.Array, scale: Scale, dtype: Any) -> jax.Array:
    """Logit from which a negative counts as being as close as the positive.

    The threshold is the logit of the positive pair x, y [..., d] as the tiles compute it, minus a
    few roundings. In a collapse, where all rows are equal, every negative must reach the threshold.

    Args:
      x: scaled rows [..., d].
      y: scaled rows [..., d].
      scale: scale of the logits.
      dtype: dtype in which the tiles multiply.

    Returns:
      [...], without gradient.
    """
    if dtype == jnp.bfloat16:
        # XLA would remove an astype to bfloat16 and back as an identity.
        x, y = (lax.reduce_precision(z, exponent_bits=8, mantissa_bits=7) for z in (x, y))
    logits = (x * y).sum(-1)
    rounding = 4 * x.shape[-1] ** 0.5 * jnp.finfo(x.dtype).eps  # of a sum of d products
    return lax.stop_gradient(logits - rounding / scale.temperature)


def softmax_body(logits: jax.Array, own: Tree, other: Tree, scale: Scale) -> tuple[Tree, Tree]:
    """Body for `pair_sums`: the term e^(logit - shift) and the monitors of `softmax_metrics`."""
    del other
    return jnp.exp(logits - scale.shift()), monitors(logits, own, scale)


def monitors(logits: jax.Array, own: Tree, scale: Scale) -> Tree:
    """Returns what `softmax_metrics` sums; own["threshold"] comes from `rank_threshold`."""
    shifted = logits - scale.shift()
    return {
        "closer": (logits >= own["threshold"]).astype(logits.dtype),
        "mass": jnp.exp(shifted),
        "moment": shifted * jnp.exp(shifted),
        "potential": jnp.exp(4 * (logits * scale.temperature - 1)),
    }


def log_sum(total: jax.Array, shift: jax.Array) -> jax.Array:
    """Log of a sum of shifted exponentials, plus the shift; finite even if all underflowed."""
    return jnp.log(jnp.maximum(total, jnp.finfo(total.dtype).tiny)) + shift


def softmax_metrics(sums: Tree, positive: jax.Array, scale: Scale, *, negatives: int) -> Metrics:
    """Metrics of a softmax over a row's positive and its negatives, without gradient.

    Args:
      sums: sums of `monitors` over the negatives, arrays [n].
      positive: logits of the positives [n].
      scale: scale of the logits.
      negatives: number of negatives of each row.

    Returns:
      Dict of scalars. A negative counts as close if its logit is at least that of the positive.
      "contrastive_accuracy": fraction of rows without close negatives.
      "contrastive_top5": fraction of rows with fewer than five close negatives.
      "contrastive_chance": accuracy of guessing, 1 / (negatives + 1).
      "entropy": mean entropy of the softmax in nats.
      "alignment": mean squared distance between unit-length positives.
      "uniformity": logarithm of the mean of exp(-2 distance²) over the negatives.
      The last two follow Wang and Isola (arXiv 2005.10242), section 4.1.
    """
    sums, positive = lax.stop_gradient((sums, positive))
    shift = scale.shift()
    log_total = jnp.logaddexp(log_sum(sums["mass"], shift), positive)
    surprise = log_total - positive
    # -sum p log p over the negatives, where log p = logit - log_total.
    negatives_entropy = ((log_total - shift) * sums["mass"] - sums["moment"]) * jnp.exp(
        shift - log_total
    )
    return {
        "contrastive_accuracy": (sums["closer"] < 1).mean(dtype=positive.dtype),
        "contrastive_chance": jnp.asarray(1 / (negatives + 1), positive.dtype),
        "contrastive_top5": (sums["closer"] < 5).mean(dtype=positive.dtype),
        "entropy": (surprise * jnp.exp(-surprise) + negatives_entropy).mean(),
        "alignment": 2 - 2 * scale.temperature * positive.mean(),
        "uniformity": jnp.log(sums["potential"].mean() / negatives),
    }
