"""A run whose config.json lacks newer hyperparameters resumes with its old values."""

import importlib
import json
import shutil

import pytest
from test_train import SMALL, arrays, assert_same_run, run

from ssl_jax import config as configuration
from ssl_jax.errors import Fault

NEW_VALUES = {
    "barlow_twins": {"apart": True, "last_bias": False},
    "byol": {"target_init": "copy", "output_norm": True, "last_bias": False},
    "moco_v3": {"last_bias": False},
}
BIASES = {
    "barlow_twins": {"['params']['head']['dense2']['bias']"},
    "byol": {f"['params']['{head}']['dense1']['bias']" for head in ("projector", "predictor")},
    "moco_v3": {"['params']['predictor']['dense1']['bias']"},
}


def config_of(name, hyperparameters):
    config = importlib.import_module(f"configs.{name}").get_config("cifar10_cpu")
    settings = SMALL | {"data.source": "digits", "augment.size": 12}
    settings |= {f"method.{keyword}": value for keyword, value in hyperparameters.items()}
    with config.unlocked():
        for path, value in settings.items():
            section, field = path.split(".")
            config[section][field] = value
    return config


# One method covers the mechanism.
@pytest.mark.parametrize(
    "name",
    ["byol", *(pytest.param(n, marks=pytest.mark.slow) for n in ("barlow_twins", "moco_v3"))],
)
def test_old_run_resumes_with_its_old_values(name, tmp_path):
    values, whole, old = configuration.OLD_VALUES[name], tmp_path / "whole", tmp_path / "old"
    run(config_of(name, values), whole)
    shutil.copytree(whole, old)
    shutil.rmtree(old / "checkpoints" / "6")
    saved = json.loads((old / "config.json").read_text())
    for keyword in values:
        del saved["method"][keyword]
    (old / "config.json").write_text(json.dumps(saved))

    with pytest.raises(Fault, match=r"method.last_bias: was True, is now False"):
        run(config_of(name, NEW_VALUES[name]), old)
    run(configuration.load(old), old)
    assert_same_run(old, whole, 6)
    assert BIASES[name] <= arrays(old, 6).keys()
