"""Losses on soft assignments to k prototypes, predicted across views: SwAV and DINO."""

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import entr

from ssl_jax.losses.softmax import Metrics
from ssl_jax.losses.tiles import wide


def sinkhorn(
    scores: jax.Array,
    *,
    epsilon: float | jax.Array = 0.05,
    iterations: int = 3,
    queue: jax.Array | None = None,
) -> jax.Array:
    """Soft codes that use all prototypes equally often: Sinkhorn-Knopp on exp(scores / epsilon).

    One iteration divides every prototype by its sum over rows, then every row by its sum over
    prototypes. The paper's constants 1/k and 1/n, and whatever is subtracted from all scores at
    once, cancel in the next division, so none is here; nothing leaves float32's range, because
    sums are taken of logarithms.

    Args:
      scores: [n, ..., k], products of n embeddings and k prototypes. What lies between are
        problems of their own, such as views.
      epsilon: > 0, of the entropic regularisation; the smaller, the harder the codes.
      iterations: >= 1.
      queue: scores [q, ..., k] of further embeddings that take part and get no codes.

    Returns:
      Codes [n, ..., k] in float32 at least, without gradient; each sums to 1 over prototypes.

    Raises:
      ValueError: wrong shapes, or an epsilon or a number of iterations that is not positive.

    Source: SwAV (Caron et al., arXiv 2006.09882), section 3.1 and the appendix's pseudo-code.
    """
    _check_positive(epsilon=epsilon, iterations=iterations)
    if scores.ndim < 2 or (queue is not None and queue.shape[1:] != scores.shape[1:]):
        also = "" if queue is None else f", queue of shape {queue.shape}"
        raise ValueError(f"scores of shape {scores.shape}{also}: want [n, ..., k], [q, ..., k]")

    def iterate(_, parts: list[jax.Array]) -> list[jax.Array]:
        sums = [jax.nn.logsumexp(part, axis=0, keepdims=True) for part in parts]
        prototype = reduce(jnp.logaddexp, sums)
        return [jax.nn.log_softmax(part - prototype) for part in parts]

    # Never joined into one array: that would move rows between devices.
    parts = [_wide(lax.stop_gradient(s)) / epsilon for s in (scores, queue) if s is not None]
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
    """Swapped prediction: the codes of each full-size view, predicted from every other view.

    The mean over examples, over the v full-size views whose codes are the target, and over the
    other v + l - 1 views that predict it. Codes are made for each view apart, over the batch.

    Args:
      scores: [b, v, k], products of unit-length projections of full-size views and unit-length
        prototypes.
      local: [b, l, k], likewise of the small crops, which predict and are never predicted.
      queue: [q, v, k], likewise of earlier projections, joined to the codes' problem.
      temperature: > 0, of the predictions' softmax.
      epsilon, iterations: of `sinkhorn`.

    Returns:
      The scalar loss in nats, and metrics without gradient: "target_entropy", mean entropy of one
      view's code, and "marginal_entropy", entropy of the mean code, in nats. Sinkhorn holds the
      second near log k; a collapse shows as the first reaching it.

    Raises:
      ValueError: wrong shapes, no two views, or a number that is not positive.

    Source: Caron et al. (arXiv 2006.09882), equations 2 and 6. Equation 6 adds up what their code
    and this average.
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
    """Self-distillation: the teacher's softmax on each full-size view, predicted from every other.

    The mean of the cross-entropy over examples and all pairs of a teacher's view and a different
    student's view.

    Args:
      student, teacher: outputs [b, v, k] on the full-size views; the teacher's get no gradient.
      center: [k], subtracted from the teacher's outputs; see `dino_center`.
      teacher_temperature, student_temperature: > 0; the teacher's is the smaller.
      local: the student's outputs [b, l, k] on the small crops.

    Returns:
      The scalar loss in nats, and metrics without gradient, in nats: "target_entropy", mean
      entropy of the teacher's softmax, and "marginal_entropy", entropy of its mean. In a collapse
      both reach log k (too much centring) or both 0 (too much sharpening).

    Raises:
      ValueError: wrong shapes, no two views, or a temperature that is not positive.

    Source: Caron et al. (arXiv 2104.14294), equations 1 to 3. Equation 3 adds up what their code
    and this average.
    """
    _check_positive(
        teacher_temperature=teacher_temperature, student_temperature=student_temperature
    )
    _check_views(student, local)
    if teacher.shape != student.shape or center.shape != student.shape[-1:]:
        raise ValueError(
            f"student of shape {student.shape}, teacher of shape {teacher.shape}, center of shape "
            f"{center.shape}: want [b, v, k] twice and [k]"
        )
    centred = _wide(lax.stop_gradient(teacher)) - lax.stop_gradient(center)[None, None]
    targets = jax.nn.softmax(centred / teacher_temperature)
    return _cross_view(targets, student, local, student_temperature), _entropies(targets)


def dino_center(center: jax.Array, teacher: jax.Array, *, momentum: float = 0.9) -> jax.Array:
    """The next center [k]: an exponential moving average of the mean of the teacher's outputs.

    Args:
      center: [k], zeros at first.
      teacher: outputs [b, v, k] of the step whose loss has used `center`.
      momentum: of the average, in [0, 1].

    Source: Caron et al. (arXiv 2104.14294), equation 4.
    """
    mean = _wide(teacher).mean((0, 1))
    return lax.stop_gradient(momentum * center + (1 - momentum) * mean)


def _cross_view(
    targets: jax.Array, full: jax.Array, local: jax.Array | None, temperature: float | jax.Array
) -> jax.Array:
    """Mean cross-entropy of targets [b, v, k] over all views but the target's own."""
    logits = full if local is None else jnp.concatenate([full, local], axis=1)
    log_p = jax.nn.log_softmax(_wide(logits) / temperature)
    # Accelerators would round float32 to 8 or 11 bits by default.
    pairs = jnp.einsum("bik,bjk->bij", targets, log_p, precision=lax.Precision.HIGHEST)
    b, v, views = pairs.shape
    own = jnp.eye(v, views, dtype=bool)
    return -jnp.where(own[None], 0, pairs).sum() / (b * v * (views - 1))


def _entropies(targets: jax.Array) -> Metrics:
    return {
        "target_entropy": entr(targets).sum(-1).mean(),
        "marginal_entropy": entr(targets.mean((0, 1))).sum(),
    }


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(wide(x.dtype))


def _check_views(full: jax.Array, local: jax.Array | None) -> None:
    fits = full.ndim == 3 and (
        full.shape[1] > 1
        if local is None
        else local.ndim == 3 and local.shape[::2] == full.shape[::2] and local.shape[1] > 0
    )
    if not fits:
        also = "" if local is None else f", local views of shape {local.shape}"
        raise ValueError(
            f"full-size views of shape {full.shape}{also}: want [b, v, k] and, if any, [b, l, k], "
            "two views or more in all"
        )


def _check_positive(**numbers: float | jax.Array) -> None:
    for name, number in numbers.items():
        if isinstance(number, int | float | np.number) and not number > 0:
            raise ValueError(f"{name} {number}: want a number above 0")
