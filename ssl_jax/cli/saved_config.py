"""The config file behind `--config=WORKDIR/config.json`: settings of an existing run.

With it, a run resumes with the settings that it began with, whatever the shipped config of the same
name has become.
"""

import pathlib

from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax.errors import BAD_CONFIG, Fault

FILE = "config.json"


def get_config(workdir: str) -> ConfigDict:
    """Returns the config of the run in a folder.

    Raises:
      Fault: the folder holds no run or a damaged one (`config.load`), or the run was not made by
        `ssl-jax train`.
    """
    config = configuration.load(pathlib.Path(workdir))
    unnamed = not config.method.get("name") or not config.model.get("name")
    if unnamed or "finetune" in config or "pretrained" in config:
        message = f"{workdir}/{FILE} is not of a run of `ssl-jax train`"
        raise Fault(f"{message}; pass a shipped config or a config file", BAD_CONFIG)
    return config
