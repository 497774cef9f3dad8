"""What the softmax losses share: unit rows, the shift that keeps exponentials in range, metrics."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssl_jax.losses.tiles import Rows

Metrics = dict[str, jax.Array]
Tree = Any

# exp leaves float32 at -87 and 88. Above, a sum of 2^20 terms needs 14, and its cotangent, which
# divides by the sum and by the number of rows, must not fall below the range either.
_WINDOW, _HEADROOM = 80, 55


def normalise(z: jax.Array) -> jax.Array:
    """Rows [..., d] of unit length, in float32 at least; a zero row stays zero.

    Division by the largest element first: the square of a huge one overflows. The result does not
    depend on that element, so neither does the gradient.
    """
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    largest = lax.stop_gradient(jnp.abs(z).max(-1, keepdims=True))
    z = z / jnp.where(largest > 0, largest, 1)
    squares = jnp.square(z).sum(-1, keepdims=True)
    return z * lax.rsqrt(jnp.where(squares > 0, squares, 1))


def product_type(z: jax.Array) -> Any:
    """The type in which similarities of z are multiplied: float16's range is too small for it."""
    return z.dtype if z.dtype == jnp.bfloat16 else jnp.promote_types(z.dtype, jnp.float32)


class Scale(NamedTuple):
    """Scalars for the bodies, without gradient. Logits are at most 1 / temperature."""

    temperature: jax.Array
    concentration: jax.Array
    """Of hard negatives; 0 elsewhere."""

    def shift(self, power: float | jax.Array = 1) -> jax.Array:
        """What to subtract from power * logits before exp. One constant for all pairs, so that
        sums of exponentials add up over tiles and devices.

        At the largest logit, or lower where the smallest would leave float32's range otherwise.
        """
        top = power / self.temperature
        return top - jnp.clip(2 * top - _WINDOW, 0, _HEADROOM)


def scaled(
    z: jax.Array, temperature: float | jax.Array, concentration: float = 0
) -> tuple[jax.Array, Scale]:
    """Rows [..., d] whose inner products are logits, and the scale of these.

    The temperature's gradient flows through the rows.
    """
    if isinstance(temperature, int | float | np.number) and not temperature > 0:
        raise ValueError(f"temperature {temperature}: want a number above 0")
    unit = normalise(z)
    temperature = jnp.asarray(temperature, unit.dtype)
    numbers = (temperature, jnp.asarray(concentration, unit.dtype))
    return unit * lax.rsqrt(temperature), Scale(*map(lax.stop_gradient, numbers))


def against_queue(
    rows: Rows, queue: jax.Array, temperature: float | jax.Array
) -> tuple[Rows, Rows]:
    """Rows and columns for the logits of `scaled` rows and a queue [k, d], k >= 1, of any length.

    All of the temperature goes to the rows: nothing is to be derived by the queue.
    """
    d = rows.x.shape[-1]
    if queue.ndim != 2 or queue.shape[1] != d or not len(queue):
        raise ValueError(f"queue of shape {queue.shape}: want [k, {d}]")
    scaled = rows.x * lax.rsqrt(jnp.asarray(temperature, rows.x.dtype))
    return Rows(scaled, aux=rows.aux), Rows(lax.stop_gradient(normalise(queue)))


def rank_threshold(x: jax.Array, y: jax.Array, scale: Scale, dtype: Any) -> jax.Array:
    """Logits [...] of the pairs x, y [..., d] as the tiles see them, less a few roundings: in a
    collapse, where all are equal, a negative must count as close as the positive."""
    if dtype == jnp.bfloat16:
        # Not by astype there and back: XLA takes that for nothing to do.
        x, y = (lax.reduce_precision(z, exponent_bits=8, mantissa_bits=7) for z in (x, y))
    logits = (x * y).sum(-1)
    rounding = 4 * x.shape[-1] ** 0.5 * jnp.finfo(x.dtype).eps  # of a sum of d products
    return lax.stop_gradient(logits - rounding / scale.temperature)


def softmax_body(logits: jax.Array, own: Tree, other: Tree, scale: Scale) -> tuple[Tree, Tree]:
    """Body for `pair_sums`: term sum of e^(logit - shift); monitors for `softmax_metrics`."""
    del other
    return jnp.exp(logits - scale.shift()), monitors(logits, own, scale)


def monitors(logits: jax.Array, own: Tree, scale: Scale) -> Tree:
    """What `softmax_metrics` needs, with own["threshold"] from `rank_threshold`."""
    shifted = logits - scale.shift()
    return {
        "closer": (logits >= own["threshold"]).astype(logits.dtype),
        "mass": jnp.exp(shifted),
        "moment": shifted * jnp.exp(shifted),
        "potential": jnp.exp(4 * (logits * scale.temperature - 1)),
    }


def log_sum(total: jax.Array, shift: jax.Array) -> jax.Array:
    """log of a sum of shifted exponentials, shift undone; finite also if all underflowed."""
    return jnp.log(jnp.maximum(total, jnp.finfo(total.dtype).tiny)) + shift


def softmax_metrics(sums: Tree, positive: jax.Array, scale: Scale, *, negatives: int) -> Metrics:
    """Metrics of a softmax over a row's positive and its negatives, without gradient.

    Args:
      sums: of `monitors` over the negatives, arrays [n].
      positive: logits of the positives [n].
      negatives: their number for each row.

    Returns:
      Scalars: "contrastive_accuracy" and "contrastive_top5", share of rows with none, with fewer
      than five, of their negatives as close as their positive or closer; "contrastive_chance", the
      accuracy of guessing, 1 / (negatives + 1); "entropy" in nats;
      "alignment" and "uniformity" (Wang and Isola, arXiv 2005.10242, section 4.1): mean squared
      distance of unit-length positives, log of the mean of exp(-2 distance^2) over negatives.
    """
    sums, positive = lax.stop_gradient((sums, positive))
    shift = scale.shift()
    whole = jnp.logaddexp(log_sum(sums["mass"], shift), positive)
    surprise = whole - positive
    # -sum p log p over the negatives, log p = logit - whole.
    others = ((whole - shift) * sums["mass"] - sums["moment"]) * jnp.exp(shift - whole)
    return {
        "contrastive_accuracy": (sums["closer"] < 1).mean(dtype=positive.dtype),
        "contrastive_chance": jnp.asarray(1 / (negatives + 1), positive.dtype),
        "contrastive_top5": (sums["closer"] < 5).mean(dtype=positive.dtype),
        "entropy": (surprise * jnp.exp(-surprise) + others).mean(),
        "alignment": 2 - 2 * scale.temperature * positive.mean(),
        "uniformity": jnp.log(sums["potential"].mean() / negatives),
    }
