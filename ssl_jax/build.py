"""Builds a whole run from its config: opens data, loads weights, puts the components together."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import components, parallel
from ssl_jax.data import pipeline
from ssl_jax.data.labels import labelled_subset
from ssl_jax.data.source import Source
from ssl_jax.errors import BAD_CONFIG, Fault, Faults, count
from ssl_jax.methods import Method
from ssl_jax.methods._frozen import FrozenNetwork
from ssl_jax.methods.distillation import Teacher
from ssl_jax.parallel import table
from ssl_jax.pretrained import backbone, classifier, frozen, initial_weights
from ssl_jax.rundir import identity
from ssl_jax.training import finetuning
from ssl_jax.training.parts import Computation, Parts
from ssl_jax.training.probe import Probe
from ssl_jax.training.state import TrainState, init_fn
from ssl_jax.training.step import make_train_step

Tree = Any
QUEUES = ("queue_size", "memory_size")  # hyperparameters that count earlier embeddings


def parts(config: ConfigDict, mesh: Mesh) -> Parts:
    """Builds a pre-training run without compiling or computing.

    Args:
      config: config of the run.
      mesh: the devices.

    Raises:
      Fault: the config does not fit the data, or names a model, a method or an option that does not
        exist.
    """
    faults = Faults()
    with faults.collect():
        parallel.check_batch(config.train.batch_size, mesh.size, **components.batch_sizes(config))
    source = _open_source(config, faults)
    sizes_fit = not faults.found  # otherwise, the same mistakes would be reported again
    test = unlabelled = run = None
    with faults.collect():
        test = components.open_test_source(config, source)
        unlabelled = None if test else components.open_unlabelled_test(config, source)
    if sizes_fit:
        with faults.collect():
            run = computation(
                config,
                mesh,
                examples=source.size,
                classes=len(source.classes),
                facts=source.facts,
            )
    faults.check()
    assert run is not None
    return Parts(**vars(run), source=source, test=test, unlabelled_test=unlabelled)


def _open_source(config: ConfigDict, faults: Faults) -> Source:
    """Opens the training examples. Raises a Fault that includes earlier faults if it fails."""
    source = None
    with faults.collect():
        source = components.open_source(config, config.data.split)
        pipeline.check_size(source, config.train.batch_size)
    if source is None:
        faults.check()
    assert source is not None
    return source


def new_run_problems(config: ConfigDict, source: Source) -> list[Fault]:
    """Returns faults of a run that may not start, but may go on if an older version started it."""
    fields = [name for name in QUEUES if config.method.get(name, 0) > source.size]
    return [
        Fault(
            f"method.{name}={config.method[name]} is more than the {source.size} training "
            "examples, so the queue would hold every example's own embedding, as a negative. Use "
            f"--config.method.{name}={source.size - source.size % config.train.batch_size} or less",
            BAD_CONFIG,
        )
        for name in fields
    ]


def warnings(config: ConfigDict, parts: Parts) -> list[str]:
    """Returns one sentence for each setting that makes the run less useful than it looks."""
    total = parts.total_steps
    steps = components.warmup_steps(config.optim.warmup_epochs, config, parts.source.size)
    if not steps or steps < total:
        return []
    # A tenth of the run is the share of SimCLR's warm-up in 100 epochs.
    shorter = 0.1 * total * config.train.batch_size / parts.source.size if total >= 10 else 0.0
    return [
        f"optim.warmup_epochs={config.optim.warmup_epochs:g} is {count(steps, 'step')}, but the "
        f"run has only {total}: the learning rate does not get past its warm-up, which starts at "
        f"0. Set --config.optim.warmup_epochs={shorter:.1g}, or train longer"
    ]


def computation(
    config: ConfigDict,
    mesh: Mesh,
    *,
    examples: int,
    classes: int,
    facts: Mapping[str, np.ndarray] | None = None,
) -> Computation:
    """Builds the computation of a pre-training run.

    Args:
      config: config of the run.
      mesh: the devices; they may be abstract, as for a plan.
      examples: number of training examples.
      classes: number of classes of the labels; 0 without labels.
      facts: `Source.facts` of the training examples; None takes `components.typical_facts`.

    Raises:
      Fault: as `parts`.
    """
    total = components.total_steps(config, examples)
    platform = mesh.devices.flat[0].platform
    teacher = load_teacher(config, platform=platform)
    method = components.make_method(
        config, total, examples, mesh.size, teacher=teacher, platform=platform, facts=facts
    )
    method = with_initial_weights(config, method)
    probe = Probe(classes if config.train.probe and classes > 1 else 0)
    return _computation(config, mesh, method, probe, examples=examples, total=total)


def finetuning_parts(config: ConfigDict, weights: Tree, mesh: Mesh) -> Parts:
    """Builds a fine-tuning run without compiling or computing.

    Args:
      config: config of `configuration.finetuning_config`.
      weights: (params, batch_stats) of `classifier.pretrained_weights`.
      mesh: the devices.

    Raises:
      Fault: the data have no labels or too few, or the projection head has too few layers.
    """
    identity.require_same_weights("finetune.pretrained", weights)
    faults = Faults()
    test = None
    with faults.collect():
        parallel.check_batch(config.train.batch_size, mesh.size, **components.batch_sizes(config))
    source = components.open_source(config, config.data.split)
    with faults.collect():
        test = components.open_test_source(config, source)
    with faults.collect():
        source = labelled(config, source)
        pipeline.check_size(source, config.train.batch_size)
    faults.check()
    if "views" not in components.make_input(config).seen:
        message = f"{source.name}: fine-tuning takes the array 'views', which this input lacks"
        raise Fault(message, BAD_CONFIG)
    networks = classifier.make_network(
        components.make_encoder(config),
        weights[0],
        config.finetune.head_layer,
        len(source.classes),
        name=config.method.name,
        bn_group=config.model.bn_group,
    )
    total = components.total_steps(config, source.size)
    method = finetuning.make(networks, weights)
    run = _computation(
        config, mesh, method, Probe(0), examples=source.size, total=total, supervised=True
    )
    tx, _ = components.make_optimizer(config, source.size, total)
    spec = components.batch_spec(config)

    def init(weights: Tree) -> TrainState:
        # Weights are an argument: as constants, the program text would contain every number.
        method = finetuning.make(networks, weights)
        seed = config.train.seed
        return init_fn(method, tx, Probe(0), spec, seed=seed, supervised=True)()

    from_weights = {"init": init, "init_arguments": (weights,)}
    return Parts(**vars(run) | from_weights, source=source, test=test)


def labelled(config: ConfigDict, source: Source) -> Source:
    """Returns the labelled examples of `source` that the config's fine-tuning trains on.

    Raises:
      Fault: the source has no labels, or a class has too few.
    """
    return labelled_subset(
        source,
        fraction=config.finetune.fraction,
        per_class=config.finetune.labels_per_class,
        seed=config.train.seed,
    )


def _computation(
    config: ConfigDict,
    mesh: Mesh,
    method: Method,
    probe: Probe,
    *,
    examples: int,
    total: int,
    supervised: bool = False,
) -> Computation:
    tx, schedule = components.make_optimizer(config, examples, total, method.turns)
    example_input = components.make_input(config)
    train_step = make_train_step(
        method,
        tx,
        schedule,
        probe,
        seed=config.train.seed,
        mesh=mesh,
        device=example_input.device,
        microbatch=config.train.microbatch,
        noise_scale=config.train.noise_scale,
        supervised=supervised,
    )
    spec, seed = components.batch_spec(config), config.train.seed
    run = Computation(
        mesh=mesh,
        input=example_input,
        total_steps=total,
        method=method,
        init=init_fn(method, tx, probe, spec, seed=seed, supervised=supervised),
        train_step=jax.jit(
            train_step, donate_argnums=0, compiler_options=parallel.compiler_options(mesh)
        ),
    )
    try:
        state = jax.eval_shape(run.init)
    except (TypeError, ValueError) as error:
        raise Fault(f"bad config: model, method or optim: {error}", BAD_CONFIG) from error
    table.check(method.params_layout, state.params, mesh)
    return run


def load_teacher(config: ConfigDict, *, platform: str = "") -> Teacher | FrozenNetwork | None:
    """Loads the network that `method.teacher` or `method.features_from` names; None without it.

    Args:
      config: config of the run.
      platform: platform of the devices; JAX's default platform if empty.

    Raises:
      Fault: the network is missing, the teacher has no classifier, or the other network does not
        take the method's images.
    """
    dtype = components.activation_dtype(config.model.dtype, platform=platform)
    if folder := config.method.get("features_from"):
        seen = components.make_input(config).seen
        if "views" not in seen:
            return None  # the method refuses such an input, with its reason
        image = seen["views"].shape[1:]
        network = frozen.load_frozen(folder, image, dtype)
        identity.require_same_weights("method.features_from", network.weights)
        return network
    if "teacher" not in config.method:
        return None
    size = config.augment.get("size", 0)  # inputs other than images have no size
    teacher = classifier.load_teacher(config.method.teacher, size, dtype)
    identity.require_same_weights("method.teacher", teacher.weights)
    return teacher


def with_initial_weights(config: ConfigDict, method: Method) -> Method:
    """Returns a method whose encoder starts from the weights of `model.init`.

    If `model.init` is empty, returns `method` unchanged.
    """
    path = config.model.get("init")  # older runs lack the field
    if not path:
        return method
    net = backbone.load(pathlib.Path(path).expanduser())
    initial_weights.check_model(config.model, net.weights.model, path)
    identity.require_same_weights("model.init", net.variables)
    return initial_weights.method_from(method, net.weights, path)
