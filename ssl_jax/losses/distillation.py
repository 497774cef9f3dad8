"""Distillation: a student learns to predict the class distribution of a teacher."""

import jax
from jax import lax
from jax.scipy.special import entr

from ssl_jax.losses.softmax import Metrics
from ssl_jax.losses.tiles import accumulation_dtype


def distillation(
    student: jax.Array, teacher: jax.Array, *, temperature: float = 1.0
) -> tuple[jax.Array, Metrics]:
    """Mean cross-entropy between the softmax of the teacher and that of the student.

    The loss is -1/b Σ_x Σ_y P_teacher(y|x) log P_student(y|x). Both softmaxes use the same
    temperature. Unlike Hinton et al. (arXiv 1503.02531), the loss is not multiplied by the square
    of the temperature.

    Args:
      student: logits [b, k].
      teacher: logits [b, k]; receive no gradient.
      temperature: positive; divides the logits of both networks.

    Returns:
      (loss, metrics). The loss is a scalar in nats, in float32 or wider. Metrics, without gradient:
      "target_entropy", mean entropy of the teacher's softmax in nats, a lower bound of the loss;
      "agreement", fraction of examples for which both networks predict the same class.

    Raises:
      ValueError: if the logits do not both have shape [b, k].

    Source: SimCLR v2 (arXiv 2006.10029), equation 2.
    """
    if student.shape != teacher.shape or student.ndim != 2:
        raise ValueError(
            f"student has shape {student.shape}, teacher {teacher.shape}; both must be [b, k]"
        )
    teacher = lax.stop_gradient(teacher)
    targets = jax.nn.softmax(teacher.astype(accumulation_dtype(teacher.dtype)) / temperature)
    log_p = jax.nn.log_softmax(student.astype(accumulation_dtype(student.dtype)) / temperature)
    agreement = (student.argmax(-1) == teacher.argmax(-1)).mean()
    metrics = {"target_entropy": entr(targets).sum(-1).mean(), "agreement": agreement}
    return -(targets * log_p).sum(-1).mean(), metrics
