"""Distillation: a student learns a fine-tuned teacher's predictions (SimCLR v2, 2006.10029)."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax

from ssl_jax.losses import distillation
from ssl_jax.methods import Batch, Method, Run, Tree
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import Classifier


class Teacher(NamedTuple):
    """A trained classifier."""

    weights: Tree  # NumPy arrays
    logits: Callable[[Tree, jax.Array], jax.Array]
    """(weights, images [n, h, w, 3] in [0, 1]) -> [n, classes], for inference."""

    classes: tuple[str, ...]


def make(encoder: nn.Module, run: Run, *, teacher: Teacher, temperature: float = 1.0) -> Method:
    """SimCLR v2's distillation on images without labels (arXiv 2006.10029, section 2).

    The student, encoder and linear classifier, minimises the cross-entropy from the teacher's
    softmax to its own (equation 2), of one view that both see. The teacher's weights lie in
    `extra` and stay what they are; it runs as in inference. With the teacher's encoder this is
    self-distillation, with a smaller one distillation from big to small; either starts from
    random weights.

    Args:
      encoder: of the student, linen module, (images [n, h, w, 3], train) -> [n, f].
      run: one view.
      teacher: of images of any size that the student's views have.
      temperature: of both softmaxes; 0.1 in the paper's self-distillation, 1 from big to small.

    Raises:
      ValueError: not one view, or a temperature that is not positive.
    """
    check_views(run, 1)
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}: want a number above 0")
    networks = Chain(run.bn_group, 1, encoder=encoder, classifier=Classifier(len(teacher.classes)))

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        params, stats = networks.init(key, batch["views"])
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), teacher.weights)
        # Called back for, or the program would hold every weight as text: a big teacher's are too
        # many for it.
        weights = jax.pure_callback(lambda: teacher.weights, shapes)
        return params, {"batch_stats": stats, "teacher": weights}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del key
        outputs, stats = networks(params, extra["batch_stats"], batch["views"])
        found = {
            "student": outputs["classifier"][:, 0],
            "teacher": teacher.logits(extra["teacher"], batch["views"][:, 0]),
            "features": outputs["encoder"],
        }
        return found, stats

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
