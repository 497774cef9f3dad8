"""Differences between two configs: which fields may differ when a run is resumed."""

import json
from typing import Any

from ssl_jax.config.fields import IMPLIED, identity_class
from ssl_jax.config.files import flatten, to_json
from ssl_jax.config.old_methods import old_values
from ssl_jax.field import FREE, IDENTITY, SCHEDULE


def changes(old: Any, new: Any) -> dict[str, list[str]]:
    """Returns the differences by class, without free fields.

    Example: {"identity": ["train.seed: was 1, is now 2"], "schedule": []}.
    """
    before, after = (drop_implied(flatten(json.loads(to_json(c)))) for c in (old, new))
    source = after.get("data.source", "digits")
    differences: dict[str, list[str]] = {IDENTITY: [], SCHEDULE: []}
    for name in sorted(before.keys() | after.keys()):
        kind = identity_class(name, source)
        if kind != FREE and before.get(name) != after.get(name):
            differences[kind].append(difference(name, before, after))
    return differences


def difference(name: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    """Returns "train.seed: was 1, is now 2" for a field of two flat configs."""
    was, now = (_value(name, flat) for flat in (before, after))
    return f"{name}: was {was}, is now {now}"


def _value(name: str, flat: dict[str, Any]) -> str:
    if name not in flat:
        implied = IMPLIED | _old_hyperparameters(flat)
        return repr(implied[name]) if name in implied else "not set"
    if name == "train.steps" and not flat[name]:
        return f"0, so that train.epochs={flat.get('train.epochs')} counts"
    return repr(flat[name])


def drop_implied(flat: dict[str, Any]) -> dict[str, Any]:
    """Drops the fields that older configs lack, where they have the value that older runs had."""
    older = IMPLIED | _old_hyperparameters(flat)
    implied, plain = (json.loads(json.dumps(values)) for values in (older, flat))
    return {k: v for k, v in flat.items() if k not in implied or plain[k] != implied[k]}


def _old_hyperparameters(flat: dict[str, Any]) -> dict[str, Any]:
    return {f"method.{k}": v for k, v in old_values(flat.get("method.name")).items()}
