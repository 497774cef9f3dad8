"""Compares the data of an evaluation or a fine-tuning with the data of the run before it."""

import pathlib
from typing import Any

from ml_collections import ConfigDict

from ssl_jax import inputs, plugins
from ssl_jax.config import fields
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.field import nearest


def is_transfer(own: ConfigDict, given: ConfigDict) -> bool:
    """Returns True if the given data are another data set.

    Another split of the same data is no transfer, and neither is a data set that has moved.

    Args:
      own: `data` section of a run.
      given: `data` section of what follows it.
    """
    if own.source != given.source:
        return True
    # A prepared data set has a name of its own; a folder and an outside source have only a place.
    named_by_place = inputs.is_folder(given.source) or plugins.is_external(given.source)
    return named_by_place and _folder(own.dir) != _folder(given.dir)


def _folder(path: str) -> pathlib.Path:
    return pathlib.Path(path).expanduser().resolve()


def update(data: ConfigDict, changes: dict[str, Any]) -> None:
    """Changes fields of a `data` section. Another source does not inherit the fields of a source.

    Args:
      data: `data` section of a run; is changed.
      changes: values by name of the field, without "data.".

    Raises:
      Fault: a field is no option of the source.
    """
    before, source = data.source, changes.get("source", data.source)
    known = [row.name for row in (*fields.DATA, *fields.data_fields(source))]
    for name in changes:
        # A function of the user may take any option.
        if f"data.{name}" not in known and not plugins.is_external(source):
            message = f"data.{name}: the source {source!r} has no such field"
            raise Fault(f"{message}; {nearest(f'data.{name}', known)}", BAD_CONFIG)
    with data.unlocked():
        data.update(changes)
    if data.source != before:
        for name, neutral in (("label", ""), ("holdout", 0.0)):
            if name in data and name not in changes:
                data[name] = neutral


def check_encoder(own: ConfigDict, given: ConfigDict, encoder: str, flag: str = "--data") -> None:
    """Checks that an encoder takes the examples of the given data.

    Args:
      own: `data` section of the run that trained the encoder.
      given: `data` section of its evaluation or fine-tuning.
      encoder: the encoder, for messages.
      flag: start of the verb's flags of data.

    Raises:
      Fault: data of another modality, or another value of a field that the encoder depends on.
    """
    modality, other = inputs.modality(own.source), inputs.modality(given.source)
    if other is not modality:
        names = [module.__name__.rpartition(".")[2] for module in (modality, other)]
        raise Fault(
            f"{flag}.source={given.source} holds examples of the modality {names[1]!r}, but "
            f"{encoder} takes {names[0]!r}. Choose data of the modality {names[0]!r}, for example "
            f"the run's own: {flag}.source={own.source}",
            BAD_CONFIG,
        )
    for name in getattr(modality, "ENCODER_DATA", ()):
        if name in own and name in given and given[name] != own[name]:
            message = f"data.{name}={given[name]}: {encoder} was trained with {own[name]}"
            raise Fault(f"{message}; leave data.{name} out", BAD_CONFIG)


def check_held_out(own: ConfigDict, given: ConfigDict) -> None:
    """Checks that examples which `given` holds out were not trained on by the run with `own`.

    Args:
      own: `data` section of the run that trained the encoder.
      given: `data` section of its evaluation or fine-tuning.

    Raises:
      Fault: both name the same data, but another part is held out.
    """
    share, before = given.get("holdout", 0), own.get("holdout", 0)
    if not share or is_transfer(own, given) or (share, given.split) == (before, own.split):
        return
    trained = f"held out {before:g} of {own.split!r}" if before else f"trained on all {own.split!r}"
    raise Fault(
        f"data.holdout={share:g} of {given.split!r}: the encoder's run {trained}, so it was "
        "trained on examples that would be held out now. Leave data.holdout and data.split as the "
        "run has them, or set data.holdout to 0 and evaluate other images by data.eval_split",
        BAD_CONFIG,
    )
