"""Distillation: a student learns a fine-tuned teacher's predictions (SimCLR v2, 2006.10029)."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax

from ssl_jax.losses import distillation
from ssl_jax.methods import Batch, Method, Run, Tree
from ssl_jax.methods._frozen import fetched
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import Classifier


class Teacher(NamedTuple):
    """A trained classifier whose predictions the student learns."""

    weights: Tree  # NumPy arrays
    logits: Callable[[Tree, jax.Array], jax.Array]
    """(weights, images [n, h, w, 3] in [0, 1]) -> [n, classes], for inference."""

    classes: tuple[str, ...]


def make(encoder: nn.Module, run: Run, *, teacher: Teacher, temperature: float = 1.0) -> Method:
    """SimCLR v2's distillation on unlabelled images (arXiv 2006.10029, section 2).

    The student has an encoder and a linear classifier. It minimises the cross-entropy between the
    teacher's softmax and its own (equation 2), on one view that both networks see. The teacher runs
    in inference mode; its weights are stored in `extra` and never change. With the teacher's
    encoder this is self-distillation; with a smaller encoder it distils a big network into a small
    one. The student starts from random weights in both cases.

    Args:
      encoder: encoder of the student, linen module, (images [n, h, w, 3], train) -> [n, f].
      run: one view.
      teacher: trained classifier for images of the size of the student's views.
      temperature: positive temperature of both softmaxes. The paper uses 0.1 for self-distillation
        and 1 for distillation into a smaller network.

    Raises:
      ValueError: if the run does not have one view, or the temperature is not positive.
    """
    check_views(run, 1)
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    networks = Chain(run.bn_group, 1, encoder=encoder, classifier=Classifier(len(teacher.classes)))

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        params, stats = networks.init(key, batch["views"])
        return params, {"batch_stats": stats, "teacher": fetched(teacher.weights)}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del key
        outputs, stats = networks(params, extra["batch_stats"], batch["views"])
        named_outputs = {
            "student": outputs["classifier"][:, 0],
            "teacher": teacher.logits(extra["teacher"], batch["views"][:, 0]),
            "features": outputs["encoder"],
        }
        return named_outputs, stats

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        loss, metrics = distillation(
            outputs["student"], outputs["teacher"], temperature=temperature
        )
        return loss, (extra, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"], images)

    def logits(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"], images, upto="classifier")

    return Method(init, encode, objective, features, logits=logits, classes=teacher.classes)
