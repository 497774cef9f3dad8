"""Frozen encoders, wherever they come from: three lines to features.

import ssl_jax
backbone = ssl_jax.load_backbone("runs/digits")
features = backbone(images)  # [n, h, w, 3] to [n, f]
"""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ssl_jax import components, models
from ssl_jax import config as configuration
from ssl_jax.errors import BAD_CHECKPOINT, BAD_CONFIG, MISSING_INPUT, USAGE, Fault
from ssl_jax.methods import Method
from ssl_jax.methods.distillation import Teacher
from ssl_jax.rundir import metadata, workdir
from ssl_jax.rundir.checkpoint import Checkpoints
from ssl_jax.weights import Tree, Weights
from ssl_jax.weights.load import load as load_weights

LONG = 1_000_000  # steps
RUN_FIELDS = ("dtype", "bn_group", "init")  # of config.model: how a run computes, not what it is


@dataclasses.dataclass(frozen=True)
class Backbone:
    """An encoder with its weights, and how its images are to be cut.

    Called, it gives the features of images: float [n, h, w, 3] in [0, 1], or uint8, to float32
    [n, f]. What the encoder wants of mean and deviation is its own matter.
    """

    weights: Weights
    size: int  # side of the images, in pixels
    channels: int = 3
    crop: float = 1.0  # central part of an image's short side that is shown
    classes: tuple[str, ...] = ()  # of the classifier in weights.others, if there is one
    origin: str = ""  # for people: "runs/digits, step 360"
    dtype: Any = jnp.float32  # of activations

    @functools.cached_property
    def encoder(self) -> Any:
        """The linen module: (images [n, h, w, 3] in [0, 1], train) -> [n, f] float32."""
        fields = dict(self.weights.model)
        return models.get(fields.pop("name"), dtype=self.dtype, **fields)

    @property
    def variables(self) -> Tree:
        """What `encoder.apply` takes."""
        return {"params": self.weights.params, "batch_stats": self.weights.batch_stats}

    def apply(self, variables: Tree, images: jax.Array) -> jax.Array:
        """Features of images in [0, 1], as a pure function of the variables."""
        return jnp.asarray(self.encoder.apply(variables, images, False), jnp.float32)

    def __call__(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Features [n, f] float32 of images [n, h, w, 3], float in [0, 1] or uint8.

        Raises:
          ValueError: another shape or kind of numbers.
        """
        shape, dtype = np.shape(images), getattr(images, "dtype", None)
        known = dtype == np.uint8 or (dtype is not None and jnp.issubdtype(dtype, jnp.floating))
        if len(shape) != 4 or shape[-1] != self.channels or not known:
            raise ValueError(
                f"images must be an array [n, h, w, {self.channels}], float in [0, 1] or uint8, "
                f"not {shape} of {dtype or type(images).__name__}"
            )
        return self._features(self.variables, images)

    def __repr__(self) -> str:
        return f"Backbone({self.weights.model}, size={self.size}, origin={self.origin!r})"

    @functools.cached_property
    def _features(self) -> Any:
        def features(variables: Tree, images: jax.Array) -> jax.Array:
            if images.dtype == jnp.uint8:
                images = images.astype(jnp.float32) / 255
            return self.apply(variables, images)

        return jax.jit(features)


def load(path: str | os.PathLike[str], *, dtype: Any = jnp.float32, **hints: Any) -> Backbone:
    """The backbone that lies at `path`.

    Args:
      path: a run's workdir (its newest checkpoint), an export's folder, or weights of another
        project: docs/import.md lists what can be read.
      dtype: of activations.
      hints: for another project's weights, what they do not say: `weights.load`.

    Raises:
      Fault: nothing there, nothing that holds an encoder, or weights that fit no model.
    """
    folder = pathlib.Path(path).expanduser().absolute()
    if workdir.is_run(folder):
        if hints:
            message = f"{folder} is a run, which knows its {', '.join(hints)}; leave it out"
            raise Fault(message, USAGE)
        return of_run(configuration.load(folder), folder, dtype=dtype)
    if folder.is_dir() and not (known := {"check.json", "config.json", "checkpoint"}) & set(
        os.listdir(folder)
    ):
        message = f"{folder} is neither a run, nor an export, nor a checkpoint of TensorFlow: none"
        raise Fault(f"{message} of {', '.join(sorted(known))} is in it", MISSING_INPUT)
    return Backbone(**load_weights(folder, **hints)._asdict(), dtype=dtype)


def of_run(config: ConfigDict, path: pathlib.Path, *, dtype: Any = jnp.float32) -> Backbone:
    """The backbone of a run's newest checkpoint, and the modules behind it.

    Args:
      config: of the run at `path`.
    """
    params, stats, step, meta = read_modules(config, path)
    model = {k: v for k, v in config.model.to_dict().items() if k not in RUN_FIELDS}
    others = {
        name: {"params": tree, "batch_stats": stats.get(name, {})}
        for name, tree in params.items()
        if name != "encoder"
    }
    return Backbone(
        Weights(model, params["encoder"], stats.get("encoder", {}), others),
        size=config.augment.size,
        channels=config.data.get("channels", 3),  # older runs lack the field
        crop=config.eval.crop,
        classes=tuple(meta.get("classes", ())) if "finetune" in config else (),
        origin=f"{path.name}, step {step:,}",
        dtype=dtype,
    )


def read_modules(config: ConfigDict, path: pathlib.Path) -> tuple[Tree, Tree, int, dict[str, Any]]:
    """(params, batch_stats, step, meta) of the newest checkpoint's modules, as NumPy arrays.

    Raises:
      Fault: no checkpoint, a damaged one, or a method without an encoder.
    """
    modules = _tuned if "finetune" in config else _method(config).modules

    def select(state: Tree) -> Tree:
        params, stats = modules(state["params"], state.get("extra", {}))
        if "encoder" not in params:
            message = f"{path}: {config.method.name} has no encoder, only: {', '.join(params)}"
            raise Fault(message, BAD_CONFIG)
        return params, {name: stats.get(name, {}) for name in params}

    with Checkpoints(path / "checkpoints", config_hash=metadata.config_hash(config)) as checkpoints:
        found = checkpoints.read_latest(select)
    if found is None:
        raise Fault(f"no checkpoint under {path}: train there first", BAD_CHECKPOINT)
    (params, stats), step, meta = found
    return params, stats, step, meta


def _tuned(params: Tree, extra: Tree) -> tuple[Tree, Tree]:
    return params, extra.get("batch_stats", {})


def _method(config: ConfigDict) -> Method:
    """For its `modules` alone: the run's own length and number of images are unknown here, and a
    student's modules do not depend on its teacher."""
    teacher = Teacher({}, lambda weights, images: images, ())
    return components.make_method(config, LONG, config.train.batch_size, devices=1, teacher=teacher)
