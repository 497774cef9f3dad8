"""Backbones to export, and the outputs that tests expect of them."""

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


def make_subject(name, size, *, head=False, head_layers=None, **options):
    """Returns an encoder with a classifier of three classes, behind `head_layers` of a head."""
    projection = None
    if head_layers is not None:
        projection = ProjectionHead(depth=3, hidden_dim=5, upto=head_layers)
    weights = random_weights.make(name, size, classes=3, head=projection, **options)
    if head_layers is not None:
        dense = weights.others["classifier"]["params"]["dense"]
        dense["kernel"] = random_weights.draw(("classifier", "kernel"), (5, 3))
    backbone = Backbone(weights, size=size, crop=0.875, classes=CLASSES, origin="run, step 7")
    return Subject(backbone, head=head, name="run", license="mit")


def export(subject, name, out):
    """Exports and returns (folder of the format, its check.json, Python code that loads it)."""
    formats.get(name).check_supported(subject)
    written = write(subject, name, out)
    check = json.loads((written.folder / "check.json").read_text())
    errors = ", ".join(f"{value:.1e} by {by}" for by, value in check["error"].items())
    for file in filter(pathlib.Path.is_file, written.folder.rglob("*")):
        # Exports are published: they must not contain paths of this machine.
        assert not re.search(HERE, file.read_bytes()), file
    print(f"{subject.model['name']} as {name}: {errors}")
    return written.folder, check, written.usage


def run_code(usage, **variables):
    """Runs Python code and returns its variables."""
    scope = dict(variables)
    exec(usage, scope)
    return scope


def expected_outputs(subject, x):
    """Returns (features, logits) of images; NumPy computes the logits in float64."""
    features = random_weights.features(subject.backbone.weights, x)
    layer = subject.backbone.weights.others["classifier"]["params"]["dense"]
    return features, features.astype(np.float64) @ layer["kernel"] + layer["bias"]


def assert_near(actual, expected):
    """Asserts equal shapes and values within the tolerance."""
    assert np.shape(actual) == np.shape(expected)
    assert random_weights.relative(actual, expected) < TOLERANCE
