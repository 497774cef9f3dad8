"""From a config to parts: the one place where config fields meet constructors.

Verbs call these; everything that is called here takes plain keyword arguments.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import methods, models, parallel
from ssl_jax.data import pipeline, sources
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, MISSING_INPUT, Fault
from ssl_jax.inputs.image import device
from ssl_jax.inputs.image.views import Decisions, View, split
from ssl_jax.methods import Batch, Method
from ssl_jax.methods.distillation import Teacher
from ssl_jax.optim import optimizers, parameters
from ssl_jax.report.figures import image_grids
from ssl_jax.training import step

HostBatch = dict[str, np.ndarray]


class Parts(NamedTuple):
    """Everything that a run is made of."""

    source: sources.Source
    test: sources.Source | None  # labelled images to evaluate by
    mesh: Mesh
    total_steps: int
    method: Method
    init: Callable[[], step.TrainState]
    train_step: Callable[..., Any]  # (state, batch) -> (state, metrics), jitted, state donated

    @property
    def abstract_state(self) -> step.TrainState:
        """Shapes, dtypes and shardings of the state on this mesh."""
        return step.abstract_state(self.init, self.method, self.mesh)

    def new_state(self) -> step.TrainState:
        """Step 0's state, born on the devices that hold it."""
        return step.born_sharded(self.init, self.method, self.mesh)


class Training(NamedTuple):
    """What is computed in a run, without its data."""

    total_steps: int
    method: Method
    init: Callable[[], step.TrainState]
    train_step: jax.stages.Wrapped  # as that of `Parts`


def parts(config: ConfigDict, mesh: Mesh) -> Parts:
    """Builds a run; nothing is compiled or computed yet.

    Raises:
      Fault: the config does not fit the data, or names a model or method that cannot be, or a
        part of the model that is not there.
    """
    data = source(config, config.data.split)
    built = training(config, mesh, images=data.size, classes=len(data.classes))
    return Parts(data, test_source(config, data), mesh, *built)


def training(config: ConfigDict, mesh: Mesh, *, images: int, classes: int) -> Training:
    """The computation of a run on a mesh, whose devices need not be there.

    Args:
      images, classes: of the training data; 0 classes for none.

    Raises:
      Fault: as `parts`.
    """
    total = total_steps(config, images)
    platform = mesh.devices.flat[0].platform
    found = method(config, total, images, mesh.size, platform=platform)
    algorithm = started(config, found)
    tx, schedule = optimizer(config, images, total)
    probe = step.Probe(classes if config.train.probe and classes > 1 else 0)
    seed = config.train.seed
    train_step = step.make_train_step(
        algorithm,
        tx,
        schedule,
        probe,
        seed=seed,
        mesh=mesh,
        prepare=prepare(config),
        microbatch=config.train.microbatch,
        noise_scale=config.train.noise_scale,
    )
    built = Training(
        total_steps=total,
        method=algorithm,
        init=step.init_fn(algorithm, tx, probe, batch_spec(config), seed=seed),
        train_step=jax.jit(
            train_step, donate_argnums=0, compiler_options=parallel.compiler_options(mesh)
        ),
    )
    try:
        jax.eval_shape(built.init)
    except (TypeError, ValueError) as error:
        raise Fault(f"bad config: model, method or optim: {error}", BAD_CONFIG) from error
    return built


def views(config: ConfigDict) -> tuple[View, ...]:
    """The random views of an image: the full-size ones, then the local ones.

    The sampler draws in this order: `augment`'s first view, the others with `augment.second`'s
    changes, and the small crops with `augment.local`'s.
    """
    first = View(**{field: config.augment[field] for field in View._fields})
    others = [first._replace(**config.augment.second.to_dict())] * (config.augment.views - 1)
    changes = config.augment.local.to_dict()
    count = changes.pop("views", 0)
    return (first, *others, *[first._replace(**changes)] * count)


def encoder(config: ConfigDict, *, platform: str = "") -> Any:
    """The encoder module; bfloat16 on accelerators unless `model.dtype` says otherwise."""
    fields = config.model.to_dict()
    name, dtype = fields.pop("name"), activations(fields.pop("dtype"), platform=platform)
    # Of the run: `models.chain` sets the group for encoder and heads, `started` the weights.
    fields = {name: value for name, value in fields.items() if name not in ("bn_group", "init")}
    return models.get(name, dtype=dtype, **fields)


def activations(dtype: str, *, platform: str = "") -> Any:
    """What `model.dtype` says, on JAX's default platform or another."""
    if dtype == "auto":
        dtype = "float32" if (platform or jax.default_backend()) == "cpu" else "bfloat16"
    return jnp.dtype(dtype)


def method(
    config: ConfigDict,
    total_steps: int,
    num_examples: int,
    devices: int,
    teacher: Teacher | None = None,
    *,
    platform: str = "",
) -> Method:
    """The method around its encoder; a hyperparameter it does not take is a Fault.

    Args:
      teacher: in the place of the one that the config names.
      platform: where it will run; JAX's default one if empty.
    """
    fields = config.method.to_dict()
    make = methods.get(fields.pop("name"))
    if "teacher" in fields:  # a workdir: methods do not know how these are read
        from ssl_jax.pretrained import classifier  # which builds on this module

        dtype = activations(config.model.dtype, platform=platform)
        fields["teacher"] = teacher or classifier.teacher(
            fields["teacher"], config.augment.size, dtype
        )
    run = methods.Run(
        views=views(config),
        total_steps=total_steps,
        batch_size=config.train.batch_size,
        num_examples=num_examples,
        bn_group=config.model.bn_group,
        chunk=config.train.microbatch // devices,
    )
    try:
        return make(encoder(config, platform=platform), run, **fields)
    except (TypeError, ValueError) as error:
        raise Fault(f"bad config: model or method: {error}", BAD_CONFIG) from error


def started(config: ConfigDict, algorithm: Method) -> Method:
    """The method, whose encoder starts from the weights that `model.init` names, if any."""
    path = config.model.get("init")  # older runs lack the field
    if not path:
        return algorithm
    from ssl_jax.pretrained import (
        backbone,  # which build on this module
        initial_weights,  # which build on this module
    )

    found = backbone.load(path)
    initial_weights.check_model(config.model, found.weights.model, path)
    return initial_weights.method_from(algorithm, found.weights, path)


def source(config: ConfigDict, split: str) -> sources.Source:
    """The examples of one split."""
    return sources.get(config.data.source, data_dir=config.data.dir, split=split)


def test_source(config: ConfigDict, train: sources.Source) -> sources.Source | None:
    """The labelled images to evaluate by; None without labels or without such a split.

    Raises:
      Fault: a single class, or other classes than in training: label numbers would not agree.
    """
    if not train.classes or not config.data.eval_split:
        return None
    try:
        test = source(config, config.data.eval_split)
    except Fault as fault:
        # A folder of one's own often has no second split, and pre-training needs none.
        if config.data.source != "folder" or fault.code != MISSING_INPUT:
            raise
        print(f"no evaluation: {fault}", flush=True)
        return None
    if len(train.classes) < 2:
        raise Fault(
            f"{train.name} has the one class {train.classes[0]!r}: evaluation needs two. Add "
            'classes, or train without evaluation by --config.data.eval_split=""',
            BAD_DATA,
        )
    if test.classes != train.classes:
        odd = sorted(set(test.classes) ^ set(train.classes))
        raise Fault(
            f"{config.data.split!r} and {config.data.eval_split!r} of {train.name} have different "
            f"classes: {', '.join(odd[:5])}. Give both the same class folders, or train without "
            'evaluation by --config.data.eval_split=""',
            BAD_DATA,
        )
    return test


def total_steps(config: ConfigDict, size: int) -> int:
    """Length of the run: train.steps, or as many as show every image train.epochs times."""
    return config.train.steps or pipeline.total_steps(
        size, config.train.batch_size, config.train.epochs
    )


def optimizer(config: ConfigDict, size: int, total: int) -> tuple[Any, Callable]:
    """(optax transformation, schedule) for `total` steps over `size` images."""
    fields = config.optim.to_dict()
    for settings in (fields, *fields["groups"].values()):
        if "warmup_epochs" in settings:
            warmup = round(settings.pop("warmup_epochs") * size / config.train.batch_size)
            settings["warmup_steps"] = min(warmup, total)
    try:
        return optimizers.make(batch_size=config.train.batch_size, total_steps=total, **fields)
    except (TypeError, ValueError) as error:
        raise Fault(f"bad config: optim: {error}", BAD_CONFIG) from error


def prepare(config: ConfigDict) -> Callable[[Batch], Batch]:
    """What the device does to a batch before the method sees it: the colour stage, or nothing."""
    if config.augment.placement == "host":
        return lambda batch: batch
    full, local = split(views(config))

    def colour(batch: Batch) -> Batch:
        batch = dict(batch)
        for prefix, group in (("", full), ("local_", local)):
            if group:
                crops, decisions = batch[f"{prefix}views"], batch.pop(f"{prefix}decisions")
                batch[f"{prefix}views"] = device.apply(crops, decisions, group)
        return batch

    return colour


def batch_spec(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a global batch as the method sees it; "local_views" only where there are any."""
    b = config.train.batch_size
    spec = {"index": jax.ShapeDtypeStruct((b,), jnp.int32)}
    for name, group in zip(("views", "local_views"), split(views(config)), strict=True):
        if group:
            shape = (b, len(group), group[0].size, group[0].size, 3)
            spec[name] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return spec


def abstract_batch(config: ConfigDict, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings of a global batch as `train_batches` brings it to the mesh."""
    b, rows = config.train.batch_size, parallel.rows(mesh)
    on_device = config.augment.placement == "device"
    arrays: dict[str, tuple[tuple[int, ...], Any]] = {
        "index": ((b,), jnp.int32),
        "label": ((b,), jnp.int32),
    }
    for prefix, group in zip(("", "local_"), split(views(config)), strict=True):
        if group:
            v, s = len(group), group[0].size
            arrays[f"{prefix}views"] = (b, v, s, s, 3), jnp.uint8 if on_device else jnp.float32
            if on_device:
                arrays[f"{prefix}decisions"] = (b, v, len(Decisions._fields)), jnp.float32
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=rows)
        for name, (shape, dtype) in arrays.items()
    }


def train_batches(
    config: ConfigDict,
    source: sources.Source,
    *,
    start_step: int,
    num_steps: int,
    batch_size: int = 0,
    host: tuple[int, int] | None = None,
) -> pipeline.Batches:
    """The rows of one host, by default this, of the global batches start_step, ..., num_steps - 1.

    Args:
      host: which of how many.
    """
    return pipeline.train_batches(
        source,
        views=views(config),
        batch_size=batch_size or config.train.batch_size,
        seed=config.train.seed,
        start_step=start_step,
        num_steps=num_steps,
        placement=config.augment.placement,
        host=host or (jax.process_index(), jax.process_count()),
        on_bad_image=config.data.on_bad_image,
        max_bad=config.data.max_bad,
    )


def parameter_table(config: ConfigDict, params: Any) -> str:
    """Every parameter, and what the optimizer does to it."""
    fields = config.optim.to_dict()
    main = {name: fields[name] for name in ("name", "weight_decay", "weight_decay_end")}
    return parameters.table(params, main, fields["groups"], fields["frozen"])


def draw_views(config: ConfigDict, source: sources.Source, path: Path, count: int = 8) -> None:
    """Writes a picture of the run's first `count` images, each beside its views."""
    count = min(count, source.size)
    # The first images of the first batch, whatever its size: order and views are per example.
    batches = train_batches(
        config, source, start_step=0, num_steps=1, batch_size=count, host=(0, 1)
    )
    batch = next(batches)
    originals = [source.load(int(index))[0] for index in batch["index"]]
    prepared = jax.device_get(prepare(config)(jax.tree.map(jnp.asarray, batch)))
    image_grids.draw_views(originals, prepared["views"], path, local=prepared.get("local_views"))
