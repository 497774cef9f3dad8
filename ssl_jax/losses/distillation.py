"""Distillation: the student's classes are the teacher's."""

import jax
from jax import lax
from jax.scipy.special import entr

from ssl_jax.losses.softmax import Metrics
from ssl_jax.losses.tiles import wide


def distillation(
    student: jax.Array, teacher: jax.Array, *, temperature: float = 1.0
) -> tuple[jax.Array, Metrics]:
    """Mean cross-entropy from the teacher's softmax to the student's, at one temperature.

    -1/b Σ_x Σ_y P_teacher(y|x) log P_student(y|x). Not multiplied by the temperature's square,
    as in Hinton et al. (arXiv 1503.02531).

    Args:
      student, teacher: logits [b, k]; the teacher's get no gradient.
      temperature: > 0.

    Returns:
      The scalar loss in nats, and metrics without gradient: "target_entropy", mean entropy of the
      teacher's softmax in nats, below which the loss cannot fall, and "agreement", the fraction
      of examples whose likeliest class is the same to both.

    Source: SimCLR v2 (arXiv 2006.10029), equation 2.
    """
    if student.shape != teacher.shape or student.ndim != 2:
        raise ValueError(f"student {student.shape}, teacher {teacher.shape}: want [b, k] twice")
    teacher = lax.stop_gradient(teacher)
    targets = jax.nn.softmax(teacher.astype(wide(teacher.dtype)) / temperature)
    log_p = jax.nn.log_softmax(student.astype(wide(student.dtype)) / temperature)
    agreement = (student.argmax(-1) == teacher.argmax(-1)).mean()
    metrics = {"target_entropy": entr(targets).sum(-1).mean(), "agreement": agreement}
    return -(targets * log_p).sum(-1).mean(), metrics
