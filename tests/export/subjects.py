"""Backbones to export, and what they are to give."""

import json
import pathlib
import re
import sys
import tempfile

import numpy as np
import random_weights

from ssl_jax.export import formats
from ssl_jax.export.subject import Subject
from ssl_jax.export.write import write
from ssl_jax.models.heads import ProjectionHead
from ssl_jax.pretrained.backbone import Backbone

TOLERANCE = 1e-5  # of the largest output
CLASSES = ("cat", "dog | horse", "été\n# title")
PLAIN = ("cat", "dog | horse", "été # title")
STANDARD = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

HERE = "|".join(
    re.escape(str(path))
    for path in (pathlib.Path(__file__).parents[2], sys.prefix, tempfile.gettempdir())
).encode()


def subject(name, size, *, head=False, kept=None, **options):
    """An encoder with a classifier of three classes, behind `kept` layers of a head if any."""
    projection = None if kept is None else ProjectionHead(depth=3, hidden_dim=5, upto=kept)
    weights = random_weights.make(name, size, classes=3, head=projection, **options)
    if kept is not None:
        dense = weights.others["classifier"]["params"]["dense"]
        dense["kernel"] = random_weights.draw(("classifier", "kernel"), (5, 3))
    backbone = Backbone(weights, size=size, crop=0.875, classes=CLASSES, origin="run, step 7")
    return Subject(backbone, head=head, name="run", license="mit")


def exported(subject, name, out):
    """(the folder of the format, its check.json, the lines that load it)."""
    formats.get(name).refuse(subject)
    written = write(subject, name, out)
    check = json.loads((written.folder / "check.json").read_text())
    errors = ", ".join(f"{value:.1e} by {by}" for by, value in check["error"].items())
    for file in filter(pathlib.Path.is_file, written.folder.rglob("*")):
        # It will be given to others, whom the folders of this machine do not concern.
        assert not re.search(HERE, file.read_bytes()), file
    print(f"{subject.model['name']} as {name}: {errors}")
    return written.folder, check, written.usage


def follow(usage, **given):
    """What the names of Python code mean once it has run."""
    scope = dict(given)
    exec(usage, scope)
    return scope


def wanted(subject, x):
    """(features, logits) of images, the latter in float64 by hand: a dense layer behind them."""
    features = random_weights.features(subject.backbone.weights, x)
    layer = subject.backbone.weights.others["classifier"]["params"]["dense"]
    return features, features.astype(np.float64) @ layer["kernel"] + layer["bias"]


def near(got, want):
    """Within the tolerance, and shaped the same."""
    assert np.shape(got) == np.shape(want)
    assert random_weights.relative(got, want) < TOLERANCE
