"""A classifier on top of an encoder, as fine-tuning trains it and a student is taught by it.

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

KEPT = ("encoder", "head")  # of the modules that a method trains


def pretrained(path: pathlib.Path) -> tuple[Tree, Tree]:
    """(params, batch_stats), {"encoder": tree} and "head" where there is one, as NumPy arrays.

    Args:
      path: whatever `backbone.load` takes.

    Raises:
      Fault: nothing there, or a method without an encoder.
    """
    params, stats = _modules(backbone.load(path))
    kept = [name for name in KEPT if name in params]
    return {n: params[n] for n in kept}, {n: stats[n] for n in kept}


def _modules(found: backbone.Backbone) -> tuple[Tree, Tree]:
    """(params, batch_stats), the trees of all modules by name."""
    print(f"read from {found.origin}", flush=True)
    others = found.weights.others
    params = {name: module["params"] for name, module in others.items()}
    stats = {name: module["batch_stats"] for name, module in others.items()}
    encoder = {"encoder": found.weights.params}, {"encoder": found.weights.batch_stats}
    return encoder[0] | params, encoder[1] | stats


def teacher(folder: str, size: int, dtype: Any) -> Teacher:
    """The classifier at `folder`: a fine-tuned run, a student, or weights of another project.

    Warns if it saw images of other than `size` pixels.

    Args:
      dtype: of its activations.

    Raises:
      Fault: none there, or nothing that classifies.
    """
    path = pathlib.Path(folder).expanduser().absolute()
    how = "fine-tune one by ssl_jax.finetune and name it by --config.method.teacher=WORKDIR"
    if not folder or not workdir.exists(path):
        raise Fault(f"no teacher at {folder!r}: {how}", MISSING_INPUT)
    found = backbone.load(path, dtype=dtype)
    if "classifier" not in found.weights.others:
        raise Fault(f"the teacher {path} has no classifier: {how}", BAD_CONFIG)
    if found.size != size:
        print(
            f"warning: the teacher saw {found.size} pixels a side, the student's views have "
            f"{size}: set augment.size, unless that is meant",
            flush=True,
        )
    params, stats = _modules(found)
    count = params["classifier"]["dense"]["bias"].shape[0]
    head_layer = sum(name.startswith("dense") for name in params.get("head", {}))
    networks = network(found.encoder, params, head_layer, count, name=found.origin)

    def logits(weights: Tree, images: jax.Array) -> jax.Array:
        stats = weights["batch_stats"]
        return networks.features(weights["params"], stats, images, upto="classifier")

    classes = found.classes or tuple(map(str, range(count)))
    return Teacher({"params": params, "batch_stats": stats}, logits, classes)


def network(
    encoder: Any, params: Tree, head_layer: int, classes: int, *, name: str, bn_group: int = 0
) -> Chain:
    """Encoder, `head_layer` layers of the projection head, classifier; one view an image.

    Args:
      params: of the pre-trained or fine-tuned modules; shapes are read.
      name: of what they were trained by, for the message.
      bn_group: rows that share BatchNorm statistics; 0 = the batch.

    Raises:
      Fault: there are no such layers in `params`.
    """
    modules = {"encoder": encoder}
    if head_layer:
        head = infer_projection_head(params.get("head", {}), head_layer, encoder.dtype)
        if head is None:
            raise Fault(
                f"finetune.head_layer={head_layer}: {name} as it was trained has no projection "
                "head with so many layers; 0 takes the encoder alone",
                BAD_CONFIG,
            )
        modules["head"] = head
    return Chain(bn_group, 1, **modules, classifier=Classifier(classes))
