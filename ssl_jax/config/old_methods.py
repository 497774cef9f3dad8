"""Hyperparameters that methods of this package gained later, and their values in older runs.

The default of a method's `make` is the authors' choice. A config.json from before the
hyperparameter existed lacks it, and describes a run with the value of this table. New configs
therefore name every hyperparameter of the table: see `with_defaults`.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ssl_jax.config import method_fields

# The temperature was constant; the other two fields have no effect then.
_TEMPERATURE = {
    "temperature_schedule": "constant",
    "temperature_end": 0.1,
    "temperature_periods": 0.5,
}
_HEAD = {"head_dropout": 0.0, "head_penalty": "none", "head_penalty_weight": 1e-4}
_ATTACK = {
    "attack_steps": 0,
    "attack_epsilon": 0.0314,
    "attack_step_size": 0.007,
    "attack_weight": 0.00390625,
}
OLD_VALUES: dict[str, dict[str, Any]] = {
    "barlow_twins": {"apart": False, "last_bias": True},
    "byol": {"target_init": "own", "output_norm": False, "last_bias": True},
    "dino": {"skip_frozen": False},
    "moco": _TEMPERATURE,
    "moco_v3": {"last_bias": True} | _TEMPERATURE,
    "simclr": {"scale": 1.0, "loss": "nt_xent", "class_prior": 0.1, "concentration": 1.0}
    | _TEMPERATURE
    | _HEAD
    | _ATTACK,
    "simclr_v2": {"scale": 1.0} | _TEMPERATURE,
    "swav": {"skip_frozen": False},
    "vicreg": {"apart": False, "last_bias": True},
}


def old_values(method: Any) -> dict[str, Any]:
    """Returns {hyperparameter: value in older runs}; {} for a method outside the package."""
    return OLD_VALUES.get(method, {}) if isinstance(method, str) else {}


def missing_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the hyperparameters that a saved config lacks, with their values in older runs.

    Args:
      config: content of config.json. Weights of another project ("pretrained") have no
        hyperparameters.
    """
    method = config.get("method", {})
    if "pretrained" in config or not hasattr(method, "items"):
        return {}
    return {k: v for k, v in old_values(method.get("name")).items() if k not in method}


def with_defaults(config: ConfigDict) -> ConfigDict:
    """Returns a new run's config that names every hyperparameter of the table.

    Without this, the config.json of a new run could not be told from that of an older one.

    Args:
      config: config that the user wrote; a missing hyperparameter has the default of `make`.
    """
    name = config.method.name
    defaults = method_fields.defaults(name) if old_values(name) else {}
    lacking = {k: defaults[k] for k in old_values(name) if k not in config.method}
    if not lacking:
        return config
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.method.update(lacking)
    return config
