"""Subjects of an evaluation: encoders with weights from a run in memory, a checkpoint or a file."""

import pathlib
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import build, components, parallel
from ssl_jax.data.source import Facts
from ssl_jax.errors import BAD_CHECKPOINT, Fault
from ssl_jax.evals import protocols
from ssl_jax.inputs import Input
from ssl_jax.methods import Method
from ssl_jax.methods.distillation import Teacher
from ssl_jax.models import layers
from ssl_jax.pretrained.backbone import Backbone
from ssl_jax.rundir import facts as facts_file
from ssl_jax.rundir import metadata
from ssl_jax.rundir.checkpoint import Checkpoints
from ssl_jax.training.parts import Parts
from ssl_jax.training.state import born_sharded, init_method

Tree = Any
TRAINED, UNTRAINED, RAW = "trained", "untrained encoder", "raw input"
ENCODER = "encoder"  # name of the encoder among a method's modules


class Subject(NamedTuple):
    """An encoder that is evaluated: pure functions, and the weights they take."""

    name: str
    """Name of the features in tables and files."""

    step: int
    """Training step of the weights; 0 for weights that no run made."""

    weights: dict[str, Tree]
    """Weights by feature set: TRAINED, and UNTRAINED if the baseline is wanted."""

    features: Callable[[Tree, Tree], jax.Array]
    """(weights, x) -> float32 [n, f]; x is what `Input.to_model` returns."""

    layers: Callable[[Tree, Tree], dict[str, jax.Array]] | None
    """(weights, x) -> outputs [n, f] by name of the block, see `models.layers.outputs`; None
    without an encoder."""

    protocols: tuple[str, ...]
    """Protocols that the method names in `Method.evals`."""

    logits: Callable[[Tree, Tree], jax.Array] | None = None
    """(weights, x) -> [n, k], from a classifier that the method learns without labels."""

    towers: Mapping[str, Callable[[Tree, Tree], jax.Array]] = MappingProxyType({})
    """Name of a part of the example -> ((weights, x) -> [n, d]); see `Method.towers`."""

    classes: tuple[str, ...] = ()
    """Class names of the columns of `logits`."""

    frames: Callable[[Tree, Tree], tuple[jax.Array, jax.Array]] | None = None
    """(weights, x) -> (float32 [n, t, f], bool [n, t] of valid frames), by the encoder's method
    `frames`; None without such a method."""

    vectors: Callable[[Tree], jax.Array] | None = None
    """weights -> float32 [V, d], a vector for each of `facts["words"]`."""

    facts: Facts = MappingProxyType({})
    """`Source.facts` of the training examples."""


def subject_from_method(
    config: ConfigDict,
    method: Method,
    step: int,
    trained: Tree,
    untrained: Tree | None,
    *,
    facts: Facts,
) -> Subject:
    """Returns the subject of a run's method.

    Args:
      config: config of the run.
      method: the method.
      step: training step of `trained`.
      trained: (params, extra).
      untrained: (params, extra) of the baseline; None leaves it out.
      facts: `Run.facts` of the method.
    """
    encoder = components.make_encoder(config)

    def layer_outputs(weights: Tree, x: Tree) -> dict[str, jax.Array]:
        params, stats = method.modules(*weights)
        variables = {"params": params[ENCODER], "batch_stats": stats.get(ENCODER, {})}
        return layers.outputs(encoder, variables, x)

    def frame_outputs(weights: Tree, x: Tree) -> tuple[jax.Array, jax.Array]:
        params, stats = method.modules(*weights)
        variables = {"params": params[ENCODER], "batch_stats": stats.get(ENCODER, {})}
        return encoder.apply(variables, x, method="frames")

    def unpacked(function: Callable[..., jax.Array]) -> Callable[[Tree, Tree], jax.Array]:
        return lambda weights, x: function(*weights, x)

    def unpacked_vectors(weights: Tree) -> jax.Array:
        assert method.vectors is not None
        return method.vectors(*weights)

    weights = {TRAINED: trained} | ({} if untrained is None else {UNTRAINED: untrained})
    modules, _ = jax.eval_shape(lambda weights: method.modules(*weights), trained)
    return Subject(
        name=config.method.name,
        step=step,
        weights=weights,
        features=unpacked(method.features),
        layers=layer_outputs if ENCODER in modules else None,
        protocols=method.evals,
        logits=unpacked(method.logits) if method.logits else None,
        classes=method.classes,
        frames=frame_outputs if ENCODER in modules and hasattr(encoder, "frames") else None,
        towers={name: unpacked(tower) for name, tower in method.towers.items()},
        vectors=unpacked_vectors if method.vectors else None,
        facts=facts,
    )


def subject_from_run(config: ConfigDict, parts: Parts, state: Any) -> Subject:
    """Returns the subject of a run that has just trained.

    Args:
      config: config of the run.
      parts: parts of the run.
      state: its last state.
    """
    untrained = None
    if config.eval.baselines:
        if config.model.get("init"):  # step 0 of this run has trained weights
            plain = components.make_method(
                config,
                parts.total_steps,
                parts.source.size,
                parts.mesh.size,
                teacher=build.load_teacher(config),
                facts=parts.source.facts,
            )
            untrained = _initialise(_init_fn(config, plain), parts.mesh)
        else:
            untrained = _gather(parts, parts.new_state())
    return subject_from_method(
        config,
        parts.method,
        int(state.step),
        _gather(parts, state),
        untrained,
        facts=parts.source.facts,
    )


def _gather(parts: Parts, state: Any) -> tuple[Tree, Tree]:
    """Returns (params, extra), whole on every device."""
    weights = state.params, state.extra
    if parts.mesh.shape[parallel.FSDP] == 1:
        return weights
    layout = (parallel.whole(parts.method.params_layout), parts.method.layout)
    return jax.jit(lambda tree: parallel.replicate_parameters(layout, tree, parts.mesh))(weights)


def subject_from_checkpoint(
    config: ConfigDict, path: pathlib.Path, mesh: Mesh, *, baselines: bool, teacher: bool
) -> Subject:
    """Returns the subject of a run's newest checkpoint; the training data are not needed.

    Args:
      config: config of the run.
      path: workdir of the run.
      mesh: devices of the evaluation.
      baselines: also make the untrained weights.
      teacher: also open a distillation's teacher, which names the classes of its student.

    Raises:
      Fault: no checkpoint, a damaged one, or facts.npz is not that of the run.
    """
    with Checkpoints(path / "checkpoints", config_hash=metadata.config_hash(config)) as checkpoints:
        newest = checkpoints.read_latest(lambda state: {"step": state["step"]})
        if newest is None:
            raise Fault(f"no checkpoint under {path}: train first", BAD_CHECKPOINT)
        _, _, meta = newest
        examples = meta["train_images"]
        total = components.total_steps(config, examples)
        stub = Teacher({}, lambda weights, x: x, ())  # features do not need the teacher
        needed = teacher and "teacher" in config.method
        loaded = build.load_teacher(config) if needed else stub
        known = facts_file.read(path)
        facts_file.require_same(path, known, meta)
        method = components.make_method(
            config, total, examples, mesh.size, teacher=loaded, facts=known
        )
        init = _init_fn(config, method)
        shapes = jax.eval_shape(init)
        content = checkpoints.read_latest(
            lambda state: tuple(
                _with_empty_branches(shape, state.get(part, {}))
                for shape, part in zip(shapes, ("params", "extra"), strict=True)
            )
        )
        assert content is not None
    weights, step, _ = content  # a running training may have saved a newer step meanwhile
    untrained = _initialise(init, mesh) if baselines else None
    return subject_from_method(config, method, step, weights, untrained, facts=known)


def _initialise(init: Callable[[], Tree], mesh: Mesh) -> Tree:
    # Training uses the same function, so the baseline equals its step 0 bit for bit.
    return born_sharded(init, parallel.replicated(mesh), mesh)


def _init_fn(config: ConfigDict, method: Method) -> Callable[[], tuple[Tree, Tree]]:
    """Returns the function that makes step 0's (params, extra), as training does."""
    spec = components.batch_spec(config)
    return lambda: init_method(method, spec, config.train.seed)


def _with_empty_branches(shapes: Tree, names: Tree) -> Tree:
    """Adds to `names` the empty branches of `shapes`, which a checkpoint does not store."""
    if not isinstance(shapes, dict):
        return names
    return {key: _with_empty_branches(shape, names.get(key, {})) for key, shape in shapes.items()}


def subject_from_backbone(
    backbone: Backbone,
    name: str,
    example_input: Input,
    mesh: Mesh,
    *,
    baselines: bool,
    seed: int,
) -> Subject:
    """Returns the subject of an encoder that was trained elsewhere.

    Args:
      backbone: the encoder and its weights.
      name: name of the features in tables.
      example_input: input whose evaluation arrays the encoder takes.
      mesh: devices of the evaluation.
      baselines: also draw untrained weights.
      seed: seed of the untrained weights.
    """
    encoder = backbone.encoder
    weights = {TRAINED: backbone.variables}
    if baselines:
        zeros = jax.tree.map(
            lambda one: jnp.zeros((2, *one.shape), one.dtype), example_input.evaluated
        )
        x = example_input.to_model(zeros)
        weights[UNTRAINED] = _initialise(lambda: encoder.init(jax.random.key(seed), x, False), mesh)
    return Subject(
        name=name,
        step=0,
        weights=weights,
        features=backbone.apply,
        layers=lambda variables, x: layers.outputs(encoder, variables, x),
        protocols=tuple(name for name in protocols.names() if protocols.get(name).needs.method),
        facts=backbone.facts,
        frames=partial(encoder.apply, method="frames") if hasattr(encoder, "frames") else None,
    )
