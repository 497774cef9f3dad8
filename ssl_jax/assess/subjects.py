"""What is evaluated: an encoder with weights, of a run in memory, a checkpoint or a file."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import build, components, parallel
from ssl_jax.errors import BAD_CHECKPOINT, BAD_CONFIG, Fault
from ssl_jax.methods import Method
from ssl_jax.methods.distillation import Teacher
from ssl_jax.models import layers
from ssl_jax.pretrained.backbone import Backbone
from ssl_jax.rundir import metadata
from ssl_jax.rundir.checkpoint import Checkpoints
from ssl_jax.training.parts import Parts
from ssl_jax.training.state import born_sharded, init_method

Tree = Any
TRAINED, UNTRAINED, RAW = "trained", "untrained encoder", "raw input"
ENCODER = "encoder"


class Subject(NamedTuple):
    """Functions of weights, and the weights: trained and, as a baseline, initial ones."""

    name: str
    """Of the features, in tables."""

    step: int
    weights: dict[str, Tree]
    """By feature set: TRAINED, and UNTRAINED where it was asked for."""

    features: Callable[[Tree, jax.Array], jax.Array]
    """(weights, images [n, h, w, 3] in [0, 1]) -> [n, f]."""

    layers: Callable[[Tree, jax.Array], dict[str, jax.Array]]
    """The same for every block, by name; see `models.layers.outputs`."""

    protocols: tuple[str, ...]
    """Of knn and linear, those that make sense of these features."""

    logits: Callable[[Tree, jax.Array], jax.Array] | None = None
    """-> [n, k], of a classifier learned without labels."""

    classes: tuple[str, ...] = ()
    """What the columns of `logits` stand for."""


def of_method(
    config: ConfigDict, method: Method, step: int, trained: Tree, untrained: Tree | None
) -> Subject:
    """The features of a run's method.

    Args:
      trained, untrained: (params, extra); None leaves the baseline out.
    """
    encoder = components.make_encoder(config)

    def of_layers(weights: Tree, images: jax.Array) -> dict[str, jax.Array]:
        params, stats = method.modules(*weights)
        if ENCODER not in params:
            message = f"{config.method.name} has no encoder: leave 'layers' out of eval.protocols"
            raise Fault(message, BAD_CONFIG)
        variables = {"params": params[ENCODER], "batch_stats": stats.get(ENCODER, {})}
        return layers.outputs(encoder, variables, images)

    def unpacked(function: Callable[..., jax.Array]) -> Callable[[Tree, jax.Array], jax.Array]:
        return lambda weights, images: function(*weights, images)

    weights = {TRAINED: trained} | ({} if untrained is None else {UNTRAINED: untrained})
    return Subject(
        name=config.method.name,
        step=step,
        weights=weights,
        features=unpacked(method.features),
        layers=of_layers,
        protocols=method.evals,
        logits=unpacked(method.logits) if method.logits else None,
        classes=method.classes,
    )


def of_run(config: ConfigDict, parts: Parts, state: Any) -> Subject:
    """The state of a run that has just trained."""
    untrained = None
    if config.eval.baselines:
        if config.model.get("init"):  # its step 0 is trained already
            fresh = build.make_method(config, parts.total_steps, parts.source.size, parts.mesh.size)
            untrained = _born(_init(config, fresh), parts.mesh)
        else:
            untrained = _gathered(parts, parts.new_state())
    return of_method(config, parts.method, int(state.step), _gathered(parts, state), untrained)


def _gathered(parts: Parts, state: Any) -> tuple[Tree, Tree]:
    """(params, extra), whole on every device."""
    found = state.params, state.extra
    if parts.mesh.shape[parallel.FSDP] == 1:
        return found
    layout = ("parameters", parts.method.layout)
    return jax.jit(lambda tree: parallel.replicate_parameters(layout, tree, parts.mesh))(found)


def of_checkpoint(
    config: ConfigDict, path: pathlib.Path, mesh: Mesh, *, baselines: bool, teacher: bool
) -> Subject:
    """The newest checkpoint of the run at `path`; the data that it was trained on are not needed.

    Args:
      config: of the run.
      teacher: whether to open a distillation's teacher, which names the classes of its student.

    Raises:
      Fault: no checkpoint, or a damaged one.
    """
    with Checkpoints(path / "checkpoints", config_hash=metadata.config_hash(config)) as checkpoints:
        content = checkpoints.read_latest(lambda state: {"step": state["step"]})
        if content is None:
            raise Fault(f"no checkpoint under {path}: train first", BAD_CHECKPOINT)
        _, step, meta = content
        images = meta["train_images"]
        total = components.total_steps(config, images)
        stub = None if teacher else Teacher({}, lambda weights, images: images, ())
        method = build.make_method(config, total, images, mesh.size, teacher=stub)
        init = _init(config, method)
        shapes = jax.eval_shape(init)
        found = checkpoints.read_latest(
            lambda state: tuple(
                _names(shape, state.get(part, {}))
                for shape, part in zip(shapes, ("params", "extra"), strict=True)
            )
        )
        assert found is not None
    untrained = _born(init, mesh) if baselines else None
    return of_method(config, method, step, found[0], untrained)


def _born(init: Callable[[], Tree], mesh: Mesh) -> Tree:
    # By the function that training uses, so that the baseline equals its step 0 bit for bit.
    return born_sharded(init, parallel.replicated(mesh), mesh)


def _init(config: ConfigDict, method: Method) -> Callable[[], tuple[Tree, Tree]]:
    """What makes the (params, extra) of step 0, as training does."""
    spec = components.batch_spec(config)
    return lambda: init_method(method, spec, config.train.seed)


def _names(shapes: Tree, names: Tree) -> Tree:
    """`names`, with the empty branches that a checkpoint does not have."""
    if not isinstance(shapes, dict):
        return names
    return {key: _names(shape, names.get(key, {})) for key, shape in shapes.items()}


def of_backbone(
    backbone: Backbone, name: str, mesh: Mesh, *, baselines: bool, seed: int
) -> Subject:
    """An encoder that was trained elsewhere; its untrained twin is one of ours."""
    encoder = backbone.encoder
    weights = {TRAINED: backbone.variables}
    if baselines:
        images = jnp.zeros((2, backbone.size, backbone.size, backbone.channels))
        weights[UNTRAINED] = _born(lambda: encoder.init(jax.random.key(seed), images, False), mesh)
    return Subject(
        name=name,
        step=0,
        weights=weights,
        features=backbone.apply,
        layers=lambda variables, images: layers.outputs(encoder, variables, images),
        protocols=("knn", "linear"),
    )
