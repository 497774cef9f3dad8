"""Loads frozen encoders from runs, exports and other projects.

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
from ssl_jax.rundir import facts as facts_file
from ssl_jax.rundir import metadata, workdir
from ssl_jax.rundir.checkpoint import Checkpoints
from ssl_jax.weights import Tree, Weights, input_channels, shapes
from ssl_jax.weights.load import EXPORT_FILES
from ssl_jax.weights.load import load as load_weights

LONG = 1_000_000  # steps
# Floats that pass for images in [0, 1]: bicubic and Lanczos resizing overshoot at sharp edges.
RANGE = (-0.5, 1.5)
RUN_FIELDS = ("dtype", "bn_group", "init")  # fields of config.model that do not define the encoder


@dataclasses.dataclass(frozen=True)
class Backbone:
    """An encoder with its weights, and the size and crop of its images.

    Calling it maps images to features. The encoder normalises the images, so pass them unchanged.
    """

    weights: Weights
    size: int  # side of the images, in pixels; 0 for an encoder of another modality
    channels: int = 3  # channels of the images
    crop: float = 1.0  # central fraction of an image's short side that evaluation shows
    classes: tuple[str, ...] = ()  # class names of the classifier in weights.others, if it has one
    origin: str = ""  # source of the weights for messages, such as "runs/digits, step 360"
    dtype: Any = jnp.float32  # dtype of activations
    # `Source.facts` of the run, with which other data are opened.
    facts: facts_file.Facts = dataclasses.field(default_factory=dict, repr=False)

    @functools.cached_property
    def encoder(self) -> Any:
        """Linen module: (images [n, h, w, c] in [0, 1], train) -> features [n, f], float32."""
        fields = dict(self.weights.model)
        return models.get(fields.pop("name"), dtype=self.dtype, **fields)

    @property
    def variables(self) -> Tree:
        """Variables for `encoder.apply`."""
        return {"params": self.weights.params, "batch_stats": self.weights.batch_stats}

    def apply(self, variables: Tree, images: jax.Array) -> jax.Array:
        """Returns float32 features [n, f] of images [n, h, w, c] in [0, 1], as a pure function."""
        return jnp.asarray(self.encoder.apply(variables, images, False), jnp.float32)

    def __call__(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Returns float32 features [n, f] of images [n, h, w, c], float in [0, 1] or uint8.

        An encoder of another modality takes the arrays that `Input.to_model` returns. Inside
        `jax.jit` and other transformations the values of floats are unknown and not checked.

        Raises:
          ValueError: the images have another shape or dtype, a float is far outside [0, 1] (below
            -0.5 or above 1.5, which resizing does not exceed), or NaN.
        """
        if not self.size:
            return self._features(self.variables, images)
        shape, dtype = np.shape(images), getattr(images, "dtype", None)
        valid = dtype == np.uint8 or (dtype is not None and jnp.issubdtype(dtype, jnp.floating))
        if len(shape) != 4 or shape[-1] != self.channels or not valid:
            raise ValueError(
                f"images must be an array [n, h, w, {self.channels}], float in [0, 1] or uint8, "
                f"not {shape} of {dtype or type(images).__name__}"
            )
        if dtype != np.uint8:
            _check_range(images)
        return self._features(self.variables, images)

    def __repr__(self) -> str:
        return f"Backbone({self.weights.model}, size={self.size}, origin={self.origin!r})"

    @functools.cached_property
    def _features(self) -> Any:
        def features(variables: Tree, images: jax.Array) -> jax.Array:
            if self.size and images.dtype == jnp.uint8:
                images = images.astype(jnp.float32) / 255
            return self.apply(variables, images)

        return jax.jit(features)


def _check_range(images: jax.Array | np.ndarray) -> None:
    """Raises ValueError if known values are not those of images in [0, 1]."""
    if isinstance(images, jax.core.Tracer) or not images.size:
        return
    xp = np if isinstance(images, np.ndarray) else jnp  # checks arrays where they are
    low, high = float(xp.min(images)), float(xp.max(images))
    if not RANGE[0] <= low <= high <= RANGE[1]:
        raise ValueError(
            f"images must be float in [0, 1] or uint8, but their values are from {low:.4g} to "
            f"{high:.4g}. Divide by 255 or pass uint8, and do not standardise: the encoder does"
        )


def load(path: str | os.PathLike[str], *, dtype: Any = jnp.float32, **hints: Any) -> Backbone:
    """Loads the backbone at `path`.

    Args:
      path: workdir of a run (its newest checkpoint), folder of an export, or weights of another
        project; docs/import.md lists the formats.
      dtype: dtype of activations.
      hints: options that another project's weights do not contain; see `weights.load`.

    Raises:
      Fault: the path is missing, it holds no encoder, or its weights fit no model.
    """
    folder = pathlib.Path(path).expanduser().absolute()
    if workdir.is_run(folder):
        if hints:
            message = f"{folder} is a run, and its config states {', '.join(hints)}; leave them out"
            raise Fault(message, USAGE)
        return backbone_from_run(configuration.load(folder), folder, dtype=dtype)
    known = {*EXPORT_FILES, "config.json", "checkpoint"}
    if folder.is_dir() and not known & set(os.listdir(folder)):
        message = f"{folder} is neither a run, nor an export, nor a TensorFlow checkpoint: it holds"
        raise Fault(f"{message} none of {', '.join(sorted(known))}", MISSING_INPUT)
    loaded = load_weights(folder, **hints)
    channels = input_channels(loaded.weights.model, shapes(loaded.weights.params))
    return Backbone(**loaded._asdict(), channels=channels, dtype=dtype)


def backbone_from_run(
    config: ConfigDict, path: pathlib.Path, *, dtype: Any = jnp.float32
) -> Backbone:
    """Loads the backbone of a run's newest checkpoint; the other modules are in `weights.others`.

    Args:
      config: config of the run.
      path: workdir of the run.
      dtype: dtype of activations.

    Raises:
      Fault: as `modules_from_run`.
    """
    params, stats, step, meta = modules_from_run(config, path)
    model = {k: v for k, v in config.model.to_dict().items() if k not in RUN_FIELDS}
    others = {
        name: {"params": tree, "batch_stats": stats.get(name, {})}
        for name, tree in params.items()
        if name != "encoder"
    }
    return Backbone(
        Weights(model, params["encoder"], stats.get("encoder", {}), others),
        size=config.augment.get("size", 0),
        channels=config.data.get("channels", 3),  # older runs lack the field
        crop=config.eval.crop,
        classes=tuple(meta.get("classes", ())) if "finetune" in config else (),
        origin=f"{path.name}, step {step:,}",
        dtype=dtype,
        facts=facts_file.read(path),
    )


def modules_from_run(
    config: ConfigDict, path: pathlib.Path
) -> tuple[Tree, Tree, int, dict[str, Any]]:
    """Returns (params, batch_stats, step, meta) of the newest checkpoint's modules.

    `params` and `batch_stats` are dicts by name of the module; their arrays are NumPy arrays.

    Raises:
      Fault: the run has no checkpoint, it is damaged, the method has no encoder, or facts.npz does
        not belong to it.
    """

    def select(state: Tree) -> Tree:
        params, stats = modules(state["params"], state.get("extra", {}))
        if "encoder" not in params:
            message = f"{path}: {config.method.name} has no encoder, only: {', '.join(params)}"
            raise Fault(message, BAD_CONFIG)
        return params, {name: stats.get(name, {}) for name in params}

    with Checkpoints(path / "checkpoints", config_hash=metadata.config_hash(config)) as checkpoints:
        newest = checkpoints.read_latest(lambda state: {"step": state["step"]})
        if newest is not None:
            known = facts_file.read(path)
            facts_file.require_same(path, known, newest[2])
            tuned = "finetune" in config
            modules = _fine_tuned_modules if tuned else _method(config, known).modules
            newest = checkpoints.read_latest(select)
    if newest is None:
        raise Fault(f"no checkpoint under {path}: train there first", BAD_CHECKPOINT)
    (params, stats), step, meta = newest
    return params, stats, step, meta


def _fine_tuned_modules(params: Tree, extra: Tree) -> tuple[Tree, Tree]:
    """Returns (params, batch_stats) by module, as `Method.modules` does for pre-training."""
    return params, extra.get("batch_stats", {})


def _method(config: ConfigDict, known: facts_file.Facts) -> Method:
    """Makes the run's method; only its `modules` may be used.

    The length of the run and the number of examples are not known here, and the teacher of a
    distillation is a stand-in. `modules` depends on none of them.
    """
    teacher = Teacher({}, lambda weights, images: images, ())
    return components.make_method(
        config, LONG, config.train.batch_size, devices=1, teacher=teacher, facts=known
    )
