"""What is exported: a backbone, alone or with the classifier behind it, and what people call it."""

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

LONGEST = 200  # letters of a name


@dataclasses.dataclass(frozen=True)
class Subject:
    """A backbone and how it is exported.

    Formats take its weights from `weights`, which are without the modules behind the encoder
    unless `head` asks for them.
    """

    backbone: Backbone
    head: bool = False  # with the modules behind the encoder
    name: str = "backbone"
    license: str = ""  # "" where it is not stated
    run: run_files.Run | None = None  # None: weights that no run of ours made

    @property
    def model(self) -> dict[str, Any]:
        """Arguments of `ssl_jax.models.get` but dtype."""
        return self.backbone.weights.model

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.backbone.size

    @functools.cached_property
    def weights(self) -> Weights:
        """What is written."""
        weights = self.backbone.weights
        return weights if self.head else weights._replace(others={})

    @property
    def standardisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, std) that images in [0, 1] are standardised by, per channel."""
        mean, std = (self.model.get(k, (d,) * 3) for k, d in (("mean", 0.0), ("std", 1.0)))
        return tuple(map(float, mean)), tuple(map(float, std))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the exported classifier's outputs; () without one, or where nobody knows."""
        return tuple(map(plain, self.backbone.classes)) if self.has_logits else ()

    @property
    def bytes(self) -> int:
        """What the weights take."""
        return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(variables_of(self.weights)))

    @property
    def has_logits(self) -> bool:
        """Whether what is exported ends in a classifier."""
        return "classifier" in self.weights.others

    @property
    def class_count(self) -> int:
        """Outputs of the exported classifier, 0 without one."""
        if not self.has_logits:
            return 0
        return len(self.weights.others["classifier"]["params"]["dense"]["bias"])

    @functools.cached_property
    def features(self) -> int:
        """Features of an image."""
        images = jax.ShapeDtypeStruct((1, self.size, self.size, 3), np.float32)
        return jax.eval_shape(self.forward, variables_of(self.weights), images)[0].shape[1]

    def forward(self, variables: Tree, images: jax.Array) -> tuple[jax.Array, ...]:
        """Images [n, size, size, 3] in [0, 1] to (features,) or (features, logits), float32.

        Args:
          variables: of `variables_of`.
        """
        encoder = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
        features = self.backbone.apply(encoder, images)
        if not self.has_logits:
            return (features,)
        others = variables["others"]
        x: Any = features
        if "head" in others:
            params = others["head"]["params"]
            head = heads.cut(params, sum(name.startswith("dense") for name in params))
            if head is None:
                message = f"{self.name}: its classifier is behind a head that is not ours"
                raise Fault(f"{message}; leave out --head", BAD_CONFIG)
            x = head.apply(others["head"], x, False)
        classifier = heads.Classifier(self.class_count)
        logits: Any = classifier.apply({"params": others["classifier"]["params"]}, x, False)
        return features, logits

    @functools.cached_property
    def _program(self) -> Any:
        return jax.jit(self.forward)

    def run_weights(self, weights: Weights, images: np.ndarray) -> dict[str, np.ndarray]:
        """ "features" and, with a classifier, "logits" of images, as `weights` have them."""
        with jax.default_matmul_precision("highest"):
            return named(self._program(variables_of(weights), images))


@contextlib.contextmanager
def at_full_precision_without_paths() -> Iterator[None]:
    """How programs are made that leave this machine: exact, and silent about its folders."""
    pattern = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, pattern)
    jax.config.update(pattern, ".*/")
    try:
        with jax.default_matmul_precision("highest"):
            yield
    finally:
        jax.config.update(pattern, before)


def variables_of(weights: Weights) -> Tree:
    """The weights as one tree."""
    return {
        "params": weights.params,
        "batch_stats": weights.batch_stats,
        "others": weights.others,
    }


def named(outputs: Sequence[Any]) -> dict[str, np.ndarray]:
    """(features,) or (features, logits) by name, as NumPy arrays."""
    return dict(zip(("features", "logits"), map(np.asarray, outputs), strict=False))


def require_weights_alone(subject: Subject, name: str) -> None:
    """For formats that hold an encoder and a linear layer.

    Raises:
      Fault: --head asks for more than that.
    """
    require_classifier(subject, name)
    if "head" in subject.weights.others:
        raise Fault(
            f"--format={name} --head: the classifier stands behind layers of the projection head "
            "(finetune.head_layer > 0), for which this format has no place. Take "
            "--format=stablehlo, savedmodel, npz or orbax, or leave out --head",
            BAD_CONFIG,
        )


def require_classifier(subject: Subject, name: str) -> None:
    """For formats that hold a network and no loose modules.

    Raises:
      Fault: --head asks for a classifier that is not there.
    """
    if subject.head and not subject.has_logits:
        raise Fault(
            f"--format={name} --head: {subject.backbone.origin or subject.name} has no classifier; "
            "a fine-tuned run or a student has one. Projection heads travel in --format=npz and "
            "orbax alone",
            BAD_CONFIG,
        )


def require_size(subject: Subject, name: str) -> None:
    """For formats whose one file must be smaller than 2 GiB; raises Fault."""
    if subject.bytes > 2**31 - 2**24:
        raise Fault(
            f"--format={name}: one file holds 2 GiB at most, these weights are "
            f"{subject.bytes / 2**30:.1f} GiB. Take --format=torch, savedmodel or orbax",
            BAD_CONFIG,
        )


def slug(text: str) -> str:
    """Letters, digits, ".", "_" and "-" of a name: safe in paths, model ids and tags."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:LONGEST] or "backbone"


def plain(text: str) -> str:
    """A name of one printable line."""
    return "".join(c if c.isprintable() else " " for c in text)[:LONGEST]
