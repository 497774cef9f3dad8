"""Exports to NumPy's npz: ViTs with Google's names, which timm reads, others with our own names."""

import pathlib

import numpy as np

from ssl_jax import models
from ssl_jax.export import check
from ssl_jax.export.formats import Input, timm
from ssl_jax.export.subject import Subject
from ssl_jax.weights import native, npz_vit

FILE = "model.npz"
INPUT = Input("NHWC")


def check_supported(subject: Subject) -> None:
    """Accepts every subject."""


def write(subject: Subject, folder: pathlib.Path) -> None:
    """Writes model.npz."""
    google = uses_google_names(subject)
    arrays = npz_vit.encode(subject.weights, subject.size) if google else None
    np.savez(folder / FILE, allow_pickle=False, **(arrays or native.encode(subject.weights)))


def read(subject: Subject, folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Returns the outputs for check.images, computed by JAX."""
    with np.load(folder / FILE, allow_pickle=False) as file:
        arrays = dict(file)
    decode = npz_vit.decode if uses_google_names(subject) else native.decode
    weights = decode(arrays, model=subject.model)
    return {"jax": subject.run_weights(weights, check.images(subject))}


def uses_google_names(subject: Subject) -> bool:
    """Returns True for a ViT whose exported modules all have a name in Google's layout."""
    others = subject.weights.others
    return subject.model["name"] in models.VITS and others.keys() <= {"classifier"}


def usage(subject: Subject, folder: pathlib.PurePath) -> str:
    """Returns Python code that loads the export."""
    if not uses_google_names(subject):
        return (
            "import ssl_jax, numpy as np\n"
            f"arrays = np.load({str(folder / FILE)!r})  # 'params/conv1/kernel' ..., NHWC, HWIO\n"
            f"backbone = ssl_jax.load_backbone({str(folder)!r})"
        )
    call = timm.create_model_call(subject, folder / FILE, custom_load=True)
    return f"import timm\nmodel = {call}.eval()"
