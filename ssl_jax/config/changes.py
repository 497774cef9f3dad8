"""Differences between two configs: which fields may differ when a run is resumed."""

import json
from typing import Any

from ssl_jax.config.fields import IMPLIED, identity_class
from ssl_jax.config.files import flatten, to_json
from ssl_jax.field import FREE, IDENTITY, SCHEDULE


def changes(old: Any, new: Any) -> dict[str, list[str]]:
    """Returns the differences by class: {"identity": ["train.seed: 1 -> 2"], "schedule": []}.

    Free fields are left out.
    """
    before, after = (drop_implied(flatten(json.loads(to_json(c)))) for c in (old, new))
    source = after.get("data.source", "digits")
    differences: dict[str, list[str]] = {IDENTITY: [], SCHEDULE: []}
    for name in sorted(before.keys() | after.keys()):
        kind = identity_class(name, source)
        if kind != FREE and before.get(name) != after.get(name):
            values = (repr(flat.get(name, "absent")) for flat in (before, after))
            differences[kind].append(f"{name}: {' -> '.join(values)}")
    return differences


def drop_implied(flat: dict[str, Any]) -> dict[str, Any]:
    """Drops the fields that older configs lack, where they have the value that older runs had."""
    implied, plain = (json.loads(json.dumps(values)) for values in (IMPLIED, flat))
    return {k: v for k, v in flat.items() if k not in implied or plain[k] != implied[k]}
