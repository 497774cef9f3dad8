"""Settings of a run: the table of all fields, checks, config.json, and changes on resume.

A config is checked before JAX or TensorFlow is imported, so that a mistake is reported in under two
seconds. ConfigDict is used here, in `configs/`, in `build` and in the verbs. Code below them takes
plain keyword arguments.
"""

from ssl_jax.config.adapt import DataFacts, adapt, auto_fields, power_of_two
from ssl_jax.config.changes import changes, difference, drop_implied
from ssl_jax.config.checks import problems
from ssl_jax.config.defaults import (
    allow_modules,
    check_modules,
    default_config,
    evaluation_config,
    every_data_field,
    external_modules,
    finetuning_config,
    imported_config,
)
from ssl_jax.config.fields import (
    IMPLIED,
    Row,
    describe,
    identity_class,
    is_identity,
    source_options,
)
from ssl_jax.config.files import flatten, from_json, load, to_json
from ssl_jax.config.old_methods import OLD_VALUES, missing_values, with_defaults
from ssl_jax.config.suggestions import suggest
from ssl_jax.config.valid import IMPORTED, PROTOCOLS
from ssl_jax.field import nearest

__all__ = [
    "IMPLIED",
    "IMPORTED",
    "OLD_VALUES",
    "PROTOCOLS",
    "DataFacts",
    "Row",
    "adapt",
    "allow_modules",
    "auto_fields",
    "changes",
    "check_modules",
    "default_config",
    "describe",
    "difference",
    "drop_implied",
    "evaluation_config",
    "every_data_field",
    "external_modules",
    "finetuning_config",
    "flatten",
    "from_json",
    "identity_class",
    "imported_config",
    "is_identity",
    "load",
    "missing_values",
    "nearest",
    "power_of_two",
    "problems",
    "source_options",
    "suggest",
    "to_json",
    "with_defaults",
]
