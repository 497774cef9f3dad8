"""The backbone to export, alone or with the classifier behind it, and its name and licence."""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.models import heads
from ssl_jax.pretrained.backbone import Backbone
from ssl_jax.report import run_files
from ssl_jax.weights import Tree, Weights

MAX_NAME_LENGTH = 200  # characters


@dataclasses.dataclass(frozen=True)
class Subject:
    """A backbone and the options of its export.

    Formats write `weights`, which have the modules behind the encoder only if `head` is True.
    """

    backbone: Backbone
    head: bool = False  # export the modules behind the encoder too
    name: str = "backbone"
    license: str = ""  # "" if unknown
    run: run_files.Run | None = None  # None for weights that do not come from a run of ssl_jax

    @property
    def model(self) -> dict[str, Any]:
        """Arguments of `ssl_jax.models.get` except dtype."""
        return self.backbone.weights.model

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.backbone.size

    @functools.cached_property
    def weights(self) -> Weights:
        """Weights to export."""
        weights = self.backbone.weights
        return weights if self.head else weights._replace(others={})

    @property
    def standardisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per-channel (mean, std) with which the encoder standardises images in [0, 1]."""
        mean, std = (self.model.get(k, (d,) * 3) for k, d in (("mean", 0.0), ("std", 1.0)))
        return tuple(map(float, mean)), tuple(map(float, std))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the exported classifier's outputs; () if there is none or names are unknown."""
        return tuple(map(printable_line, self.backbone.classes)) if self.has_logits else ()

    @property
    def bytes(self) -> int:
        """Size of the weights in bytes."""
        return sum(
            np.asarray(leaf).nbytes for leaf in jax.tree.leaves(variables_tree(self.weights))
        )

    @property
    def has_logits(self) -> bool:
        """True if the export has a classifier."""
        return "classifier" in self.weights.others

    @property
    def class_count(self) -> int:
        """Number of the classifier's outputs; 0 without a classifier."""
        if not self.has_logits:
            return 0
        return len(self.weights.others["classifier"]["params"]["dense"]["bias"])

    @functools.cached_property
    def features(self) -> int:
        """Number of features per image."""
        images = jax.ShapeDtypeStruct((1, self.size, self.size, self.backbone.channels), np.float32)
        return jax.eval_shape(self.forward, variables_tree(self.weights), images)[0].shape[1]

    def forward(self, variables: Tree, images: jax.Array) -> tuple[jax.Array, ...]:
        """Returns (features,) or (features, logits) of images, float32.

        Args:
          variables: tree of arrays as `variables_tree` returns it.
          images: [n, size, size, c] in [0, 1].

        Raises:
          Fault: if the classifier is behind a head of unknown structure.
        """
        encoder = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
        features = self.backbone.apply(encoder, images)
        if not self.has_logits:
            return (features,)
        others = variables["others"]
        x: Any = features
        if "head" in others:
            params = others["head"]["params"]
            depth = sum(name.startswith("dense") for name in params)
            head = heads.infer_projection_head(params, depth)
            if head is None:
                message = f"{self.name}: its classifier is behind an unsupported head"
                raise Fault(f"{message}. Leave out --head", BAD_CONFIG)
            x = head.apply(others["head"], x, False)
        classifier = heads.Classifier(self.class_count)
        logits: Any = classifier.apply({"params": others["classifier"]["params"]}, x, False)
        return features, logits

    @functools.cached_property
    def _program(self) -> Any:
        return jax.jit(self.forward)

    def run_weights(self, weights: Weights, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns "features" and, with a classifier, "logits" of images, given `weights`."""
        with jax.default_matmul_precision("highest"):
            return name_outputs(self._program(variables_tree(weights), images))


@contextlib.contextmanager
def at_full_precision_without_paths() -> Iterator[None]:
    """Makes JAX export programs with full precision and without the paths of this machine."""
    option = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, option)
    jax.config.update(option, ".*/")
    try:
        with jax.default_matmul_precision("highest"):
            yield
    finally:
        jax.config.update(option, before)


def variables_tree(weights: Weights) -> Tree:
    """Returns the weights as one tree."""
    return {
        "params": weights.params,
        "batch_stats": weights.batch_stats,
        "others": weights.others,
    }


def name_outputs(outputs: Sequence[Any]) -> dict[str, np.ndarray]:
    """Returns (features,) or (features, logits) as NumPy arrays by name."""
    return dict(zip(("features", "logits"), map(np.asarray, outputs), strict=False))


def require_linear_head(subject: Subject, name: str) -> None:
    """Checks a subject for formats that hold an encoder and at most one linear layer behind it.

    Raises:
      Fault: if `subject.head` is True and there is no classifier, or layers before it.
    """
    require_classifier(subject, name)
    if "head" in subject.weights.others:
        raise Fault(
            f"--format={name} --head: the classifier is behind layers of the projection head "
            "(finetune.head_layer > 0), which this format does not support. Use "
            "--format=stablehlo, savedmodel, npz or orbax, or leave out --head",
            BAD_CONFIG,
        )


def require_classifier(subject: Subject, name: str) -> None:
    """Checks a subject for formats that do not hold modules other than a classifier.

    Raises:
      Fault: if `subject.head` is True and there is no classifier.
    """
    if subject.head and not subject.has_logits:
        raise Fault(
            f"--format={name} --head: {subject.backbone.origin or subject.name} has no classifier; "
            "a fine-tuned run or a student has one. Only --format=npz and orbax export projection "
            "heads",
            BAD_CONFIG,
        )


def require_size(subject: Subject, name: str) -> None:
    """Checks a subject for formats whose single file must be smaller than 2 GiB.

    Raises:
      Fault: if the weights are too large.
    """
    if subject.bytes > 2**31 - 2**24:
        raise Fault(
            f"--format={name}: a file is limited to 2 GiB, but these weights have "
            f"{subject.bytes / 2**30:.1f} GiB. Use --format=torch, savedmodel or orbax",
            BAD_CONFIG,
        )


def slug(text: str) -> str:
    """Replaces characters other than letters, digits, ".", "_" and "-".

    The result is safe in paths, model ids and tags.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:MAX_NAME_LENGTH] or "backbone"


def printable_line(text: str) -> str:
    """Returns the text as one line of printable characters."""
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_NAME_LENGTH]
