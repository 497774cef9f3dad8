"""Configs as text: flat dicts, JSON, and the config.json of a run."""

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from ssl_jax.config.defaults import untrusted_defaults
from ssl_jax.errors import BAD_DATA, MISSING_INPUT, Fault


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns {"optim.lr": 0.3, ...} for a ConfigDict or nested dicts."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def to_json(config: Any) -> str:
    """Returns the canonical JSON of a config."""
    plain = config.to_dict() if hasattr(config, "to_dict") else config
    return json.dumps(plain, indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """Returns the config that `to_json` wrote. JSON's lists become tuples again.

    Raises:
      ValueError: the text is not JSON.
    """

    def with_tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: with_tuples(v) for k, v in value.items()}
        return tuple(value) if isinstance(value, list) else value

    return ConfigDict(with_tuples(json.loads(text)))


def load(path: pathlib.Path) -> ConfigDict:
    """Returns the config of the run in the folder `path`. Missing fields get their defaults.

    The config may come from anybody, so it allows no module outside the package to be imported.

    Raises:
      Fault: the folder has no config.json, config.json is not JSON, or the modality of its data
        source is in a module that the user did not allow.
    """
    file = path / "config.json"
    if not file.is_file():
        raise Fault(f"no run at {path}: {file.name} is missing", MISSING_INPUT)
    try:
        saved = from_json(file.read_text())
    except ValueError as error:
        raise Fault(f"{file} is not JSON: {error}; restore it", BAD_DATA) from error
    for section, name in (("data", "source"), ("method", "name"), ("model", "name")):
        if not isinstance(saved.get(section, {}).get(name), str | None):
            raise Fault(f"{file}: {section}.{name} is not a word; restore the file", BAD_DATA)
    config = untrusted_defaults(saved.get("data", {}).get("source", "digits"))
    with config.unlocked():
        # An encoder and a method have fields of their own: defaults of others must not be added.
        config.model, config.method = {}, {}
        config.update(saved)
    return config
