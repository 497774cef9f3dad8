"""Configs as text: flat dicts, JSON, and the config.json of a run."""

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from ssl_jax.config.defaults import untrusted_defaults
from ssl_jax.config.old_methods import missing_values
from ssl_jax.errors import BAD_DATA, MISSING_INPUT, Fault
from ssl_jax.jobs import json_files


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
      ValueError: the text is not a JSON object.
    """
    return _to_config(json_files.parse(text))


def _to_config(value: Any) -> ConfigDict:
    """Returns a JSON object as a config; raises ValueError if it cannot be one."""

    def with_tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: with_tuples(v) for k, v in value.items()}
        return tuple(value) if isinstance(value, list) else value

    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    try:
        return ConfigDict(with_tuples(value))
    except (AttributeError, KeyError, TypeError) as error:  # names that a config cannot have
        raise ValueError(str(error)) from error


def load(path: pathlib.Path) -> ConfigDict:
    """Returns the config of the run in the folder `path`. Missing fields get their defaults.

    Hyperparameters that the method gained after the run was started get the values that reproduce
    the run, see `config.old_methods`.

    The config may come from anybody, so it allows no module outside the package to be imported.

    Raises:
      Fault: the folder has no config.json, config.json is damaged, or the modality of its data
        source is in a module that the user did not allow.
    """
    file = path / "config.json"
    if not file.is_file():
        raise Fault(f"no run at {path}: {file.name} is missing", MISSING_INPUT)
    try:
        saved = _to_config(json_files.read_object(file))
    except (OSError, ValueError) as error:
        raise Fault(f"{file} is not JSON: {error}; restore it", BAD_DATA) from error
    words = (("data", "source", str), ("method", "name", str | None), ("model", "name", str | None))
    for section, name, kind in words:
        fields = saved.get(section, ConfigDict())
        if not isinstance(fields, ConfigDict) or not isinstance(fields.get(name, ""), kind):
            raise Fault(f"{file}: {section}.{name} is not a word; restore the file", BAD_DATA)
    config = untrusted_defaults(saved.get("data", {}).get("source", "digits"))
    sections = [name for name, value in config.items() if isinstance(value, ConfigDict)]
    try:
        with config.unlocked():
            # An encoder and a method have fields of their own: no defaults of others are added.
            config.model, config.method = {}, {}
            config.update(saved)
        if wrong := [name for name in sections if not isinstance(config[name], ConfigDict)]:
            raise TypeError(f"{wrong[0]} is not an object")
        with config.unlocked():
            config.method.update(missing_values(saved))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise Fault(f"{file} has a value of a wrong type: {error}; restore it", BAD_DATA) from error
    return config
