"""A run whose config.json lacks newer hyperparameters resumes with its old values."""

import importlib
import json

import numpy as np
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


def config_of(name, **fields):
    config = importlib.import_module(f"configs.{name}").get_config("cifar10_cpu")
    settings = SMALL | {"data.source": "digits", "augment.size": 12} | fields
    with config.unlocked():
        for path, value in settings.items():
            section, field = path.split(".")
            config[section][field] = value
    return config


@pytest.mark.parametrize("name", NEW_VALUES)
def test_old_run_resumes_with_its_old_values(name, tmp_path):
    values = configuration.OLD_VALUES[name]
    fields = {f"method.{keyword}": value for keyword, value in values.items()}
    old = config_of(name, **fields)
    run(old, tmp_path / "whole")
    short = tmp_path / "short"
    run(config_of(name, **fields, **{"train.steps": 4}), short)
    saved = json.loads((short / "config.json").read_text())
    for keyword in values:
        del saved["method"][keyword]
    (short / "config.json").write_text(json.dumps(saved))

    loaded = configuration.load(short)
    loaded.train.steps = 6
    other = config_of(name, **{f"method.{k}": v for k, v in NEW_VALUES[name].items()})
    with pytest.raises(Fault, match=r"method.last_bias: was True, is now False"):
        run(other, short, allow=["train.steps"])
    run(loaded, short, allow=["train.steps"])
    resumed, whole = arrays(short, 6), arrays(tmp_path / "whole", 6)
    biases = {key for key in resumed if "dense" in key and key.endswith("['bias']")}
    assert {key for key in biases if key.startswith("['params']['")} >= BIASES[name]
    assert resumed.keys() == whole.keys()
    constant = all(np.array_equal(resumed[key], whole[key]) for key in resumed)
    if constant:
        assert_same_run(short, tmp_path / "whole", 6)
