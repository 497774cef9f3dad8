"""NumPy's own file: ViTs as Google names them, which timm reads; all else by our names."""

import pathlib

import numpy as np

from ssl_jax import models
from ssl_jax.export import check
from ssl_jax.export.formats import Input, timm
from ssl_jax.export.subject import Subject
from ssl_jax.weights import native, npz_vit

FILE = "model.npz"
INPUT = Input("NHWC")


def refuse(subject: Subject) -> None:
    """Everything fits."""


def write(subject: Subject, folder: pathlib.Path) -> None:
    """Writes model.npz."""
    google = has_googles_names(subject)
    arrays = npz_vit.encode(subject.weights, subject.size) if google else None
    np.savez(folder / FILE, allow_pickle=False, **(arrays or native.encode(subject.weights)))


def read(subject: Subject, folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Outputs of check.images by our own network."""
    with np.load(folder / FILE, allow_pickle=False) as file:
        arrays = dict(file)
    decode = npz_vit.decode if has_googles_names(subject) else native.decode
    weights = decode(arrays, model=subject.model)
    return {"jax": subject.run_weights(weights, check.images(subject.size))}


def has_googles_names(subject: Subject) -> bool:
    """Whether this is a ViT with nothing behind it that Google's layout has no name for."""
    others = subject.weights.others
    return subject.model["name"] in models.VITS and others.keys() <= {"classifier"}


def usage(subject: Subject, folder: pathlib.PurePath) -> str:
    """Lines of Python."""
    if not has_googles_names(subject):
        return (
            "import ssl_jax, numpy as np\n"
            f"arrays = np.load({str(folder / FILE)!r})  # 'params/conv1/kernel' ..., NHWC, HWIO\n"
            f"backbone = ssl_jax.load_backbone({str(folder)!r})"
        )
    call = timm.by_file(subject, folder / FILE, custom_load=True)
    return f"import timm\nmodel = {call}.eval()"
