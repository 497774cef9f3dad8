"""Loads classifiers: pre-trained networks for fine-tuning, and teachers for distillation.

The network is the encoder, the first layers of the projection head, and a linear classifier.
"""

import pathlib
from typing import Any

import jax

from ssl_jax.errors import BAD_CONFIG, MISSING_INPUT, Fault
from ssl_jax.methods import Tree
from ssl_jax.methods.distillation import Teacher
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import Classifier, infer_projection_head
from ssl_jax.pretrained import backbone
from ssl_jax.rundir import workdir

FINE_TUNED = ("encoder", "head")  # pre-trained modules that fine-tuning uses


def pretrained_weights(path: pathlib.Path) -> tuple[Tree, Tree]:
    """Returns (params, batch_stats) of "encoder" and, if there is one, "head", as NumPy arrays.

    Args:
      path: a path that `backbone.load` accepts.

    Raises:
      Fault: as `backbone.load`.
    """
    params, stats = _modules(backbone.load(path))
    names = [name for name in FINE_TUNED if name in params]
    return {n: params[n] for n in names}, {n: stats[n] for n in names}


def _modules(net: backbone.Backbone) -> tuple[Tree, Tree]:
    """Returns (params, batch_stats) of all modules, as dicts by name; prints their origin."""
    print(f"read weights from {net.origin}", flush=True)
    others = net.weights.others
    params = {name: module["params"] for name, module in others.items()}
    stats = {name: module["batch_stats"] for name, module in others.items()}
    encoder = {"encoder": net.weights.params}, {"encoder": net.weights.batch_stats}
    return encoder[0] | params, encoder[1] | stats


def load_teacher(folder: str, size: int, dtype: Any) -> Teacher:
    """Loads the teacher of a distillation and warns if it was trained on another image size.

    Args:
      folder: a fine-tuned run, a student, or weights of another project.
      size: side of the student's views in pixels.
      dtype: dtype of the teacher's activations.

    Raises:
      Fault: the folder is missing, or its weights have no classifier.
    """
    path = pathlib.Path(folder).expanduser().absolute()
    advice = "Fine-tune a run by ssl_jax.finetune and pass --config.method.teacher=WORKDIR"
    if not folder or not workdir.exists(path):
        raise Fault(f"no teacher at {folder!r}. {advice}", MISSING_INPUT)
    net = backbone.load(path, dtype=dtype)
    if "classifier" not in net.weights.others:
        raise Fault(f"the teacher {path} has no classifier. {advice}", BAD_CONFIG)
    if net.size != size:
        print(
            f"warning: the teacher was trained on images of {net.size} px, but the student's views "
            f"have {size} px. Set augment.size unless this is intended",
            flush=True,
        )
    params, stats = _modules(net)
    count = params["classifier"]["dense"]["bias"].shape[0]
    head_layer = sum(name.startswith("dense") for name in params.get("head", {}))
    networks = make_network(net.encoder, params, head_layer, count, name=net.origin)

    def logits(weights: Tree, images: jax.Array) -> jax.Array:
        stats = weights["batch_stats"]
        return networks.features(weights["params"], stats, images, upto="classifier")

    classes = net.classes or tuple(map(str, range(count)))
    return Teacher({"params": params, "batch_stats": stats}, logits, classes)


def make_network(
    encoder: Any, params: Tree, head_layer: int, classes: int, *, name: str, bn_group: int = 0
) -> Chain:
    """Makes the chain of encoder, `head_layer` layers of the projection head, and classifier.

    It takes one view per image.

    Args:
      encoder: the encoder module.
      params: parameters of the pre-trained or fine-tuned modules; only shapes are read.
      head_layer: number of layers of the projection head; 0 uses only the encoder.
      classes: number of classes.
      name: method or origin of `params`, for the message.
      bn_group: number of rows that share BatchNorm statistics; 0 for the whole batch.

    Raises:
      Fault: `params` has fewer layers in its projection head.
    """
    modules = {"encoder": encoder}
    if head_layer:
        head = infer_projection_head(params.get("head", {}), head_layer, encoder.dtype)
        if head is None:
            raise Fault(
                f"finetune.head_layer={head_layer}: the weights of {name} have no projection head "
                "with so many layers. Lower it; 0 uses only the encoder",
                BAD_CONFIG,
            )
        modules["head"] = head
    return Chain(bn_group, 1, **modules, classifier=Classifier(classes))
