"""Names that a report shows for methods, runs, data sets and evaluations."""

import pathlib
from typing import Any

from ssl_jax import inputs
from ssl_jax.report.run_files import Run, protocol_of

METHOD_NAMES = {
    "barlow_twins": "Barlow Twins",
    "byol": "BYOL",
    "clip": "CLIP",
    "colorization": "Colorization",
    "cpc": "CPC",
    "cpc_audio": "CPC",
    "context_encoder": "Context encoder",
    "cssl": "CSSL",
    "denoising": "Denoising autoencoder",
    "dino": "DINO",
    "distillation": "Distillation",
    "imported": "Imported weights",
    "jigsaw": "Jigsaw",
    "mae": "MAE",
    "moco": "MoCo",  # versions 1 and 2
    "moco_v3": "MoCo v3",
    "npid": "NPID",
    "rbm": "RBM",
    "relative_position": "Relative position",
    "rotation": "Rotation",
    "siamese": "Siamese",
    "simclr": "SimCLR",
    "simclr_v2": "SimCLR v2",
    "simsiam": "SimSiam",
    "split_brain": "Split-brain autoencoder",
    "swav": "SwAV",
    "vae": "VAE",
    "vicreg": "VICReg",
    "word2vec": "word2vec",
}
_EVALUATION_NAMES = {
    "classifier": "Own classifier",
    "finetune": "Fine-tuned",
    "few_shot": "Few labels",
    "layers": "Layers",
    "label_free": "Without labels",
    "retrieval": "Retrieval",
    "zero_shot": "Zero-shot",
    "analogy": "Analogies",
    "similarity": "Similarity",
    "neighbours": "Neighbours",
}


def run_title(run: Run) -> str:
    """Returns a title like "SimCLR on cifar10"; the data set is left out if it is unknown."""
    if run.pretrained:
        return f"{method_name(run)}, evaluated on {data_name(run)}"
    return f"{method_name(run)} on {data_name(run)}" if data_name(run) else method_name(run)


def method_name(run: Run) -> str:
    """Returns "SimCLR", "SimCLR, fine-tuned,", or the origin of imported weights."""
    if origin := run.pretrained.get("origin"):
        return str(origin)
    name = METHOD_NAMES.get(run.method, run.method) or "Self-supervised run"
    return name + (", fine-tuned," if "finetune" in run.config else "")


def data_name(run: Run) -> str:
    """Returns the name of the run's training data, "" if the config does not name it.

    Data of a folder have the folder's name.
    """
    data = run.config.get("data", {})
    name = str(data.get("source", "")).removeprefix("tfds:")
    folder = pathlib.PurePath(str(data.get("dir") or "")).name
    return folder if inputs.is_folder(name) and folder else name


def evaluation_name(evaluation: dict[str, Any]) -> str:
    """Returns the name of an evaluation, for example "Linear, 10 labels per class"."""
    kind = str(evaluation.get("evaluation", ""))
    protocol = protocol_of(evaluation)
    if kind == "knn":
        return f"kNN, k = {protocol.get('k', '?')}"
    labels = protocol.get("labels_per_class", 0)
    if kind == "few_shot" and labels:
        return f"Few labels, {labels} per class"
    if kind not in ("linear", "linear_sgd"):
        return _EVALUATION_NAMES.get(kind, kind)
    name = "Linear, SGD" if kind == "linear_sgd" else "Linear"
    return f"{name}, {labels} labels per class" if labels else f"{name}, all labels"
