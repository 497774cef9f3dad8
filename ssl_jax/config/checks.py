"""Checks of a config before anything is built from it."""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from ssl_jax import inputs
from ssl_jax.config import fields, valid
from ssl_jax.config.files import flatten
from ssl_jax.field import AUTO, Unset, nearest

Values = dict[str, Any]  # of a flat config


def problems(config: ConfigDict) -> list[str]:
    """Returns one sentence per mistake in the values of `config`, with the field's name."""
    flat = flatten(config)
    # With this section the config is only evaluated: it needs no recipe, and its method is a label.
    trained = "pretrained" not in config
    table = (*fields.FIELDS, *fields.data_fields(flat["data.source"]))
    rows = [row for row in table if row.name in flat]
    if not trained or ("finetune" in config and flat["method.name"] == valid.IMPORTED):
        rows = [row for row in rows if row.name != "method.name"]
    sentences = {}
    for row in rows:
        value = flat[row.name]
        if value is None and isinstance(row.default, Unset) and row.default.required:
            if trained:
                need = f"give it in the config file, or pass --config.{row.name}=VALUE"
                sentences[row.name] = f"{row.name} is not set: {need}"
        elif need := row.valid.problem(value):
            sentences[row.name] = f"{row.name}={value!r}: {need}"
    cross_field = [*_data_problems(flat), *_finetune_problems(flat)]
    if trained:
        cross_field += _train_problems(flat)
    for name, need in cross_field:
        sentences.setdefault(name, f"{name}={flat[name]!r}: {need}")
    augment = inputs.modality(flat["data.source"]).problems(config.augment.to_dict())
    return [*sentences.values(), *_group_problems(config.optim), *augment]


def _data_problems(flat: Values) -> Iterator[tuple[str, str]]:
    if flat["data.source"] == "folder" and not flat["data.dir"]:
        yield "data.dir", "name the folder of images"
    if flat["data.source"] == "text" and not flat["data.dir"]:
        yield "data.dir", "name the file or folder of text"
    channels, colors = flat.get("data.channels", 3), flat.get("model.colors", "rgb")
    for name, neutral in (("model.mean", 0), ("model.std", 1)):
        # The neutral default leaves images of any number of channels unchanged.
        value = flat.get(name, ())
        given = isinstance(value, tuple | list) and any(number != neutral for number in value)
        if not given or tuple(value) == (AUTO,):
            continue
        if colors != "rgb":
            yield (
                name,
                f"{neutral} for every channel, because model.colors={colors!r} centres and scales "
                f"the channels itself; pass --config.{name}='{(float(neutral),) * 3}'",
            )
        elif len(value) != channels:
            yield name, f"one number per channel, and data.channels is {channels}"


def _train_problems(flat: Values) -> Iterator[tuple[str, str]]:
    batch_size, microbatch = flat["train.batch_size"], flat["train.microbatch"]
    if flat["train.steps"] <= 0 and flat["train.epochs"] <= 0 and flat["train.epochs"] != AUTO:
        yield "train.epochs", "more than 0, or set train.steps"
    if microbatch and flat["model.bn_group"] <= 0 and flat["model.bn_group"] != AUTO:
        yield (
            "train.microbatch",
            "needs model.bn_group, for example 32, because BatchNorm over the whole batch would "
            "couple micro-batches. The number counts full-size views and divides the views in one "
            "device's part of a micro-batch",
        )
    largest = float("inf") if batch_size == AUTO else batch_size or 0
    if flat.get("train.stop_on") == "probe" and not flat["train.probe"]:
        yield "train.stop_on", "needs train.probe"
    if flat["train.noise_scale"] and not 0 < microbatch < largest:
        yield "train.noise_scale", "needs train.microbatch"


def _finetune_problems(flat: Values) -> Iterator[tuple[str, str]]:
    if flat.get("finetune.labels_per_class") and flat["finetune.fraction"] != 1:
        yield "finetune.fraction", "1, or labels_per_class 0: give one of the two"


def _group_problems(optimizer: ConfigDict) -> list[str]:
    """Checks the fields that groups of parameters change, by the rows of the whole optimizer."""
    rows = {row.name.removeprefix("optim."): row for row in fields.OPTIM}
    allowed = [name for name in rows if name not in fields.NOT_IN_GROUPS]
    sentences = []
    for key, group in optimizer.groups.items():
        where = f"optim.groups.{key}"
        changes = group.to_dict() if hasattr(group, "items") else {}
        if not changes:
            example = "give the fields that differ from optim's, for example {'lr': 0.1}"
            sentences.append(f"{where}: {example}")
        for name, value in changes.items():
            if name not in allowed:
                sentences.append(f"{where}.{name}: unknown; {nearest(name, allowed)}")
            elif need := rows[name].valid.problem(value):
                sentences.append(f"{where}.{name}={value!r}: {need}")
            elif value == AUTO:  # no rule of `config.adapt` sets the fields of a group
                sentences.append(f"{where}.{name}={value!r}: only optim.{name} can be {AUTO}")
    return sentences
