"""Makes one part of a run from one section of its config: encoder, method, optimizer, data, input.

`build` puts the parts together. The functions called here take plain keyword arguments, not
ConfigDicts.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax import inputs, methods, models, parallel
from ssl_jax.data import holdout, pipeline, sources
from ssl_jax.data.labels import sample_indices
from ssl_jax.data.source import Facts, Source
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, MISSING_INPUT, Fault, count, printable
from ssl_jax.inputs import Input
from ssl_jax.jobs import bootstrap
from ssl_jax.methods import Method
from ssl_jax.methods._frozen import FrozenNetwork
from ssl_jax.methods.distillation import Teacher
from ssl_jax.optim import Turns, optimizers, parameters

HostBatch = dict[str, np.ndarray]


def make_input(config: ConfigDict) -> Input:
    """Makes the `Input`, which takes an example from its record to the method.

    Raises:
      Fault: fields of `data`, `augment` and `eval` contradict each other.
    """
    return inputs.modality(config.data.source).make_input(
        augment=config.augment.to_dict(),
        data=config.data.to_dict(),
        evaluation=config.eval.to_dict(),
        seed=config.train.seed,
    )


def make_encoder(config: ConfigDict, *, platform: str = "") -> Any:
    """Makes the encoder module.

    Activations are bfloat16 on accelerators, unless `model.dtype` names another dtype.

    Args:
      config: config of the run.
      platform: platform of the devices; JAX's default platform if empty.
    """
    fields = config.model.to_dict()
    name, dtype = fields.pop("name"), activation_dtype(fields.pop("dtype"), platform=platform)
    # These two fields are not the encoder's: `models.chain` sets bn_group for encoder and heads,
    # and `build` loads the weights of init.
    fields = {name: value for name, value in fields.items() if name not in ("bn_group", "init")}
    return models.get(name, dtype=dtype, **fields)


def activation_dtype(name: str, *, platform: str = "") -> Any:
    """Returns the dtype that `model.dtype` names; "auto" depends on the platform."""
    if name == "auto":
        name = "float32" if (platform or jax.default_backend()) == "cpu" else "bfloat16"
    return jnp.dtype(name)


def make_method(
    config: ConfigDict,
    total_steps: int,
    num_examples: int,
    devices: int,
    *,
    teacher: Teacher | FrozenNetwork | None = None,
    platform: str = "",
    facts: Facts | None = None,
) -> Method:
    """Makes the method and its encoder.

    Args:
      config: config of the run.
      total_steps: length of the run.
      num_examples: number of training examples.
      devices: number of devices.
      teacher: the network that a distillation learns from, or whose features a method
        reconstructs; the config only names its folder.
      platform: platform of the devices; JAX's default platform if empty.
      facts: `Source.facts` of the training examples; None takes `typical_facts`.

    Raises:
      Fault: the method does not accept a hyperparameter or its value.
    """
    fields = config.method.to_dict()
    make = methods.get(fields.pop("name"))
    if "teacher" in fields:
        fields["teacher"] = teacher
    if "features_from" in fields:  # optional, unlike a teacher
        fields["features_from"] = teacher if fields["features_from"] else None
    example_input = make_input(config)
    run = methods.Run(
        seen=example_input.seen,
        symbols=example_input.symbols,
        total_steps=total_steps,
        batch_size=config.train.batch_size,
        num_examples=num_examples,
        bn_group=config.model.bn_group,
        chunk=config.train.microbatch // devices,
        facts=typical_facts(config) if facts is None else facts,
    )
    try:
        return make(make_encoder(config, platform=platform), run, **fields)
    except (TypeError, ValueError) as error:
        raise Fault(f"bad config: model or method: {error}", BAD_CONFIG) from error


def typical_facts(config: ConfigDict) -> Facts:
    """Returns facts to plan with, in place of those of the data; {} for most modalities."""
    make = getattr(inputs.modality(config.data.source), "typical_facts", None)
    return make(config.data.to_dict()) if make else {}


def make_optimizer(
    config: ConfigDict,
    size: int,
    total: int,
    turns: Mapping[str, Turns] | None = None,
) -> tuple[Any, Callable]:
    """Returns (optax transformation, schedule) for `total` steps over `size` examples.

    `turns` are those of the `Method`.
    """
    fields = config.optim.to_dict()
    for settings in (fields, *fields["groups"].values()):
        if "warmup_epochs" in settings:
            warmup = warmup_steps(settings.pop("warmup_epochs"), config, size)
            settings["warmup_steps"] = min(warmup, total)
    try:
        return optimizers.make(
            batch_size=config.train.batch_size,
            total_steps=total,
            turns=turns,
            **fields,
        )
    except (TypeError, ValueError) as error:
        raise Fault(f"bad config: optim: {error}", BAD_CONFIG) from error


def warmup_steps(epochs: float, config: ConfigDict, size: int) -> int:
    """Returns the number of steps of a warm-up of `epochs` over `size` examples."""
    return round(pipeline.exact_steps(size, config.train.batch_size, epochs))


def parameter_table(config: ConfigDict, params: Any) -> str:
    """Returns a table of all parameters with the optimizer's settings for each."""
    fields = config.optim.to_dict()
    main = {name: value for name, value in fields.items() if name not in ("groups", "frozen")}
    return parameters.table(params, main, fields["groups"], fields["frozen"])


def total_steps(config: ConfigDict, size: int) -> int:
    """Returns the number of steps: train.steps, or that of train.epochs over `size` examples."""
    return config.train.steps or pipeline.total_steps(
        size, config.train.batch_size, config.train.epochs
    )


def open_source(config: ConfigDict, split: str, facts: Facts | None = None) -> Source:
    """Opens one split of the config's data; of `data.split`, the part that is not held out.

    Args:
      config: config of the run.
      split: the split.
      facts: `Source.facts` of the run for which the split is opened; None or {} makes them.
    """
    source = _open_whole(config, split, facts)
    share = config.data.get("holdout", 0)
    if not share or split != config.data.split:
        return source
    words = f"{split} without the {100 * share:g} % held out"
    return dataclasses.replace(holdout.training_part(source, share), split=words)


def _open_whole(config: ConfigDict, split: str, facts: Facts | None) -> Source:
    data = config.data
    options = configuration.source_options(data)
    return sources.open_source(
        data.source,
        data_dir=data.dir,
        split=split,
        label=data.get("label", ""),  # older runs lack it
        facts=facts or None,
        holdout=data.get("holdout", 0) if split == data.split else 0,
        **options,
    )


def adapt_to_data(config: ConfigDict, source: Source | None = None) -> tuple[ConfigDict, str]:
    """Sets the AUTO fields of a config from its training data; see `config.adapt`.

    Args:
      config: config of the run.
      source: the training examples; by default, they are opened if a field is AUTO.

    Returns:
      (config without AUTO, one line that names the values; "" if no field is AUTO).

    Raises:
      Fault: the data cannot be opened, or hold too few examples.
    """
    fields = configuration.auto_fields(config)
    if not fields:
        return config, ""
    source = source or open_source(config, config.data.split)
    smallest = 0
    if source.classes and "eval.labels_per_class" in fields:
        used = sample_indices(source.size, config.eval.max_train, config.train.seed)
        rows = range(source.size) if used is None else used.tolist()
        labels = np.array([source.read_label(row) for row in rows])
        smallest = int(np.bincount(labels[labels >= 0], minlength=len(source.classes)).min())
    facts = configuration.DataFacts(source.size, len(source.classes), smallest)
    config, values = configuration.adapt(config, facts)
    # A field that was AUTO may contradict one that was given.
    if problems := configuration.problems(config):
        raise Fault("bad config:\n  " + "\n  ".join(problems), BAD_CONFIG)
    settings = ", ".join(f"{name}={_short(value)}" for name, value in values.items())
    return config, f"adapted to {source.size:,} training {make_input(config).noun}s: {settings}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def open_test_source(config: ConfigDict, train: Source) -> Source | None:
    """Opens the labelled examples for evaluation; returns None if labels or split are missing.

    Prints which examples they are.

    Args:
      config: config of the run.
      train: the training examples.

    Raises:
      Fault: examples are held out of data without labels, the data have a single class, the classes
        of the two splits differ, so that their label numbers would disagree, or files are in both.
    """
    data = config.data
    share = data.get("holdout", 0)
    if share and not train.classes and not train.unlabelled_test:
        message = f"data.holdout={share:g}: {train.name} has no labels, and evaluation needs them"
        raise Fault(f"{message}. Leave data.holdout at 0, to train on all examples", BAD_CONFIG)
    if not train.classes or not (data.eval_split or share):
        return None
    try:
        test = _open_evaluation(config, train.facts)
    except Fault as fault:
        if fault.code != MISSING_INPUT:
            raise
        message = (
            f"{fault} Or hold out a part of {data.split!r}, which is then not trained on, by "
            '--config.data.holdout=0.1, or train without evaluation by --config.data.eval_split=""'
        )
        # A user's folder often has no second split, and pre-training does not need it. But a split
        # that the user named is a mistake.
        if not inputs.is_folder(data.source) or not _is_default_split(config):
            raise Fault(message, MISSING_INPUT) from None
        bootstrap.print_once(f"no evaluation: {message}")
        return None
    if not test.size:
        message = f"data.eval_split={data.eval_split!r} of {test.name} is empty"
        raise Fault(f'{message}. Choose another split, or --config.data.eval_split=""', BAD_DATA)
    if len(train.classes) < 2:
        raise Fault(
            f"{train.name} has only one class {train.classes[0]!r}; evaluation needs two. Add "
            'classes, or train without evaluation by --config.data.eval_split=""',
            BAD_DATA,
        )
    if test.classes != train.classes:
        differences = sorted(set(test.classes) ^ set(train.classes))
        raise Fault(
            f"{data.split!r} and {test.split!r} of {train.name} have different classes: "
            f"{', '.join(map(printable, differences[:5]))}. Give both the same class folders, or "
            'train without evaluation by --config.data.eval_split=""',
            BAD_DATA,
        )
    _check_disjoint(config, train, test)
    bootstrap.print_once(f"evaluation on {count(test.size, 'example')}: {test.split}")
    return test


def open_unlabelled_test(config: ConfigDict, train: Source) -> Source | None:
    """Opens the evaluation examples of data without labels, for protocols that need none.

    Args:
      config: config of the run.
      train: the training examples.

    Returns:
      The examples; None if such data are not evaluated apart, or have no split of the default name.

    Raises:
      Fault: the data cannot be read, `data.eval_split` names a split that is missing, or files are
        in both splits.
    """
    data = config.data
    if not train.unlabelled_test or not (data.eval_split or data.get("holdout", 0)):
        return None
    try:
        test = _open_evaluation(config, train.facts)
    except Fault as fault:
        if fault.code != MISSING_INPUT or not _is_default_split(config):
            raise
        bootstrap.print_once(f"training examples are evaluated: {fault}")
        return None
    _check_disjoint(config, train, test)
    return test


def _check_disjoint(config: ConfigDict, train: Source, test: Source) -> None:
    """Raises Fault if a file of the user is both a training and a test example.

    Splits of other sources are disjoint, or their overlap is written in their names. Examples that
    are held out are disjoint, too. Takes about a second for a million files.
    """
    data = config.data
    if not inputs.is_folder(data.source) or data.get("holdout", 0):
        return
    small, large = sorted((train, test), key=lambda source: source.size)
    places = set(map(small.describe, range(small.size)))
    both = [place for place in map(large.describe, range(large.size)) if place in places]
    if both:
        raise Fault(
            f"{count(len(both), 'example')} {'is' if len(both) == 1 else 'are'} both in "
            f"{data.split!r} and in {test.split!r}, for example {both[0]}. Change data.split or "
            'data.eval_split, or train without evaluation by --config.data.eval_split=""',
            BAD_DATA,
        )


def _is_default_split(config: ConfigDict) -> bool:
    return bool(config.data.eval_split == configuration.default_config().data.eval_split)


def _open_evaluation(config: ConfigDict, facts: Facts | None) -> Source:
    """Opens the part of the training split that is held out, or else the evaluation split."""
    data = config.data
    if share := data.get("holdout", 0):
        test = holdout.held_out_part(_open_whole(config, data.split, facts), share)
        words = f"{100 * share:g} % held out from {data.split}"
    else:
        words = sources.evaluation_split(data.source, data.dir, data.eval_split)
        test = open_source(config, words, facts)
    return dataclasses.replace(test, split=words)


def train_batches(
    config: ConfigDict,
    source: Source,
    *,
    start_step: int,
    num_steps: int,
    batch_size: int = 0,
    host: tuple[int, int] | None = None,
    example_input: Input | None = None,
) -> pipeline.Batches:
    """Returns one host's rows of the global batches start_step, ..., num_steps - 1.

    Args:
      config: config of the run.
      source: the examples.
      start_step: first step.
      num_steps: length of the whole run, counted from step 0.
      batch_size: size of the global batch; train.batch_size by default.
      host: (process, number of processes); this process by default.
      example_input: replaces the config's input.
    """
    return pipeline.train_batches(
        source,
        example_input or make_input(config),
        batch_size=batch_size or config.train.batch_size,
        seed=config.train.seed,
        start_step=start_step,
        num_steps=num_steps,
        host=host or (jax.process_index(), jax.process_count()),
        on_bad_example=config.data.on_bad_image,
        max_bad=config.data.max_bad,
    )


def eval_batches(config: ConfigDict, source: Source, **options: Any) -> pipeline.Batches:
    """Returns the source's examples as evaluation arrays; see `pipeline.eval_batches`."""
    return pipeline.eval_batches(
        source,
        make_input(config),
        on_bad_example=config.data.on_bad_image,
        max_bad=config.data.max_bad,
        **options,
    )


def batch_spec(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a global batch as the method sees it."""
    b = config.train.batch_size
    spec = {"index": jax.ShapeDtypeStruct((b,), jnp.int32)}
    return spec | {
        name: jax.ShapeDtypeStruct((b, *one.shape), one.dtype)
        for name, one in make_input(config).seen.items()
    }


def abstract_batch(config: ConfigDict, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes, dtypes and shardings of a global batch as it arrives on the mesh."""
    b, rows = config.train.batch_size, parallel.rows(mesh)
    arrays = {
        "index": jax.ShapeDtypeStruct((), jnp.int32),
        "label": jax.ShapeDtypeStruct((), jnp.int32),
        **make_input(config).shipped,
    }
    return {
        name: jax.ShapeDtypeStruct((b, *one.shape), one.dtype, sharding=rows)
        for name, one in arrays.items()
    }


def batch_sizes(config: ConfigDict) -> dict[str, int]:
    """Returns the sizes that must divide a batch, as arguments of `parallel.check_batch`."""
    views = make_input(config).seen.get("views")
    return {
        "microbatch": config.train.microbatch,
        "bn_group": config.model.bn_group,
        "views": views.shape[0] if views else 1,  # BatchNorm groups count views, not examples
    }
