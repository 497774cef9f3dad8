"""Losses on soft assignments to k prototypes that are predicted across views: SwAV and DINO."""

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import entr

from ssl_jax.losses.softmax import Metrics
from ssl_jax.losses.tiles import accumulation_dtype


def sinkhorn(
    scores: jax.Array,
    *,
    epsilon: float | jax.Array = 0.05,
    iterations: int = 3,
    queue: jax.Array | None = None,
) -> jax.Array:
    """Computes soft codes that use all prototypes equally often, by the Sinkhorn-Knopp algorithm.

    The weights start as exp(scores / epsilon). One iteration divides those of every prototype by
    their sum over rows, then those of every row by their sum over prototypes. The paper's constants
    1/k and 1/n cancel in the next division and are left out. Sums are computed on logarithms, so
    that nothing leaves the range of float32.

    Args:
      scores: [n, ..., k], products of n embeddings and k prototypes. Each index of the middle axes,
        for example each view, is balanced separately.
      epsilon: positive weight of the entropic regularisation; smaller values give harder codes.
      iterations: number of iterations, at least 1.
      queue: [q, ..., k], scores of further embeddings that take part in the balancing but receive
        no codes.

    Returns:
      Codes [n, ..., k] in float32 or wider, without gradient. Each code sums to 1 over prototypes.

    Raises:
      ValueError: if a shape is wrong, or epsilon or iterations is not positive.

    Source: SwAV (Caron et al., arXiv 2006.09882), section 3.1 and the pseudo-code in its appendix.
    """
    _check_positive(epsilon=epsilon, iterations=iterations)
    if scores.ndim < 2 or (queue is not None and queue.shape[1:] != scores.shape[1:]):
        also = "" if queue is None else f", queue {queue.shape}"
        raise ValueError(
            f"scores has shape {scores.shape}{also}; expected scores [n, ..., k] and queue "
            "[q, ..., k]"
        )

    def iterate(_, parts: list[jax.Array]) -> list[jax.Array]:
        sums = [jax.nn.logsumexp(part, axis=0, keepdims=True) for part in parts]
        prototype = reduce(jnp.logaddexp, sums)
        return [jax.nn.log_softmax(part - prototype) for part in parts]

    # The arrays stay separate: concatenation would move rows between devices.
    parts = [_widen(lax.stop_gradient(s)) / epsilon for s in (scores, queue) if s is not None]
    return jnp.exp(lax.fori_loop(0, iterations, iterate, parts)[0])


def swav(
    scores: jax.Array,
    *,
    local: jax.Array | None = None,
    queue: jax.Array | None = None,
    temperature: float | jax.Array = 0.1,
    epsilon: float | jax.Array = 0.05,
    iterations: int = 3,
) -> tuple[jax.Array, Metrics]:
    """SwAV's swapped prediction: every view predicts the code of every other full-size view.

    Each of the v full-size views gives a target, its code. The other v + l - 1 views predict it.
    The loss is the mean over examples, targets and predicting views. Codes are computed over the
    batch, separately for each view.

    Args:
      scores: [b, v, k], products of unit-length projections of the full-size views and unit-length
        prototypes.
      local: [b, l, k], the same products for the small crops. Small crops predict codes but are
        never targets.
      queue: [q, v, k], the same products for earlier projections; they take part in computing
        codes.
      temperature: positive temperature of the predictions' softmax.
      epsilon: regularisation of `sinkhorn`.
      iterations: iterations of `sinkhorn`.

    Returns:
      (loss, metrics). The loss is a scalar in nats. Metrics, without gradient, in nats:
      "target_entropy", mean entropy of the code of one view; "marginal_entropy", entropy of the
      mean code. Sinkhorn keeps "marginal_entropy" near log k. In a collapse "target_entropy"
      reaches it.

    Raises:
      ValueError: if a shape is wrong, there are fewer than two views, or a number is not positive.

    Source: Caron et al. (arXiv 2006.09882), equations 2 and 6. Equation 6 sums over views; the
    authors' code and this function average.
    """
    _check_positive(temperature=temperature)
    _check_views(scores, local)
    codes = sinkhorn(scores, epsilon=epsilon, iterations=iterations, queue=queue)
    return _cross_view(codes, scores, local, temperature), _entropies(codes)


def dino(
    student: jax.Array,
    teacher: jax.Array,
    *,
    center: jax.Array,
    teacher_temperature: float | jax.Array,
    student_temperature: float | jax.Array = 0.1,
    local: jax.Array | None = None,
) -> tuple[jax.Array, Metrics]:
    """DINO loss: each student view predicts the teacher's softmax on the other full-size views.

    The loss is the mean cross-entropy over examples and over all pairs of one teacher view and a
    different student view.

    Args:
      student: student outputs [b, v, k] on the full-size views.
      teacher: teacher outputs [b, v, k] on the same views; receive no gradient.
      center: [k], subtracted from the teacher outputs; see `dino_center`.
      teacher_temperature: positive, smaller than the student's.
      student_temperature: positive.
      local: student outputs [b, l, k] on the small crops.

    Returns:
      (loss, metrics). The loss is a scalar in nats. Metrics, without gradient, in nats:
      "target_entropy", mean entropy of the teacher's softmax; "marginal_entropy", entropy of its
      mean. In a collapse both reach log k (too much centring) or both reach 0 (too much
      sharpening).

    Raises:
      ValueError: if a shape is wrong, there are fewer than two views, or a temperature is not
        positive.

    Source: Caron et al. (arXiv 2104.14294), equations 1 to 3. Equation 3 sums over pairs; the
    authors' code and this function average.
    """
    _check_positive(
        teacher_temperature=teacher_temperature, student_temperature=student_temperature
    )
    _check_views(student, local)
    if teacher.shape != student.shape or center.shape != student.shape[-1:]:
        raise ValueError(
            f"student has shape {student.shape}, teacher {teacher.shape}, center {center.shape}; "
            "they must be [b, v, k], [b, v, k] and [k]"
        )
    centred = _widen(lax.stop_gradient(teacher)) - lax.stop_gradient(center)[None, None]
    targets = jax.nn.softmax(centred / teacher_temperature)
    return _cross_view(targets, student, local, student_temperature), _entropies(targets)


def dino_center(center: jax.Array, teacher: jax.Array, *, momentum: float = 0.9) -> jax.Array:
    """Updates DINO's center: an exponential moving average of the mean teacher output.

    Args:
      center: [k], zeros at the first step.
      teacher: teacher outputs [b, v, k] of the step whose loss used `center`.
      momentum: momentum of the average, in [0, 1].

    Returns:
      The next center [k], without gradient.

    Source: Caron et al. (arXiv 2104.14294), equation 4.
    """
    mean = _widen(teacher).mean((0, 1))
    return lax.stop_gradient(momentum * center + (1 - momentum) * mean)


def _cross_view(
    targets: jax.Array, full: jax.Array, local: jax.Array | None, temperature: float | jax.Array
) -> jax.Array:
    """Mean cross-entropy between targets [b, v, k] and the predictions of all other views."""
    logits = full if local is None else jnp.concatenate([full, local], axis=1)
    log_p = jax.nn.log_softmax(_widen(logits) / temperature)
    # By default, accelerators would round float32 products to 8 or 11 bits.
    pairs = jnp.einsum("bik,bjk->bij", targets, log_p, precision=lax.Precision.HIGHEST)
    b, v, views = pairs.shape
    same_view = jnp.eye(v, views, dtype=bool)
    return -jnp.where(same_view[None], 0, pairs).sum() / (b * v * (views - 1))


def _entropies(targets: jax.Array) -> Metrics:
    return {
        "target_entropy": entr(targets).sum(-1).mean(),
        "marginal_entropy": entr(targets.mean((0, 1))).sum(),
    }


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(accumulation_dtype(x.dtype))


def _check_views(full: jax.Array, local: jax.Array | None) -> None:
    fits = full.ndim == 3 and (
        full.shape[1] > 1
        if local is None
        else local.ndim == 3 and local.shape[::2] == full.shape[::2] and local.shape[1] > 0
    )
    if not fits:
        also = "" if local is None else f", local views {local.shape}"
        raise ValueError(
            f"full-size views have shape {full.shape}{also}; expected [b, v, k] and optional local "
            "views [b, l, k], with at least two views in total"
        )


def _check_positive(**numbers: float | jax.Array) -> None:
    for name, number in numbers.items():
        if isinstance(number, int | float | np.number) and not number > 0:
            raise ValueError(f"{name} must be positive, got {number}")
