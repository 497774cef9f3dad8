"""Tests that the PyTorch definition in exports gives the same outputs as our networks."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
from random_weights import features, images, make, relative

import ssl_jax
from ssl_jax.weights import torch_resnet, torch_vit

FILE = pathlib.Path(ssl_jax.__file__).parent / "export" / "pytorch.py"
TOLERANCE = 1e-5  # of the largest output
STANDARD = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# Odd sizes reveal errors of padding, even sizes the difference to SAME padding.
CASES = [
    ("resnet8", {"width": 0.25, "stem": "cifar"}, 33),
    ("resnet10", {"width": 0.25, "padding": "simclr"}, 66),
    ("resnet18", {"width": 0.25, "padding": "same", **STANDARD}, 64),
    ("resnet50", {"width": 0.25, "padding": "same"}, 75),
    ("resnet10", {"width": 2.0}, 32),
    ("resnet50", {"width": 0.5, "sk_ratio": 0.5, "padding": "simclr", **STANDARD}, 72),
    ("resnet50", {"width": 0.25, "sk_ratio": 0.0625, "stem": "cifar"}, 17),
    ("vit_micro", {"patch_size": 4, "mlp_ratio": 2, "pool": "mean"}, 16),
    ("vit_micro", {"patch_size": 8, "positions": "learned", **STANDARD}, 32),
]
IDS = [f"{name}-{'-'.join(options)}" for name, options, _ in CASES]


@pytest.fixture(scope="module")
def definition(torch):
    spec = importlib.util.spec_from_file_location("model", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "options", "size"), CASES, ids=IDS)
def test_features_and_logits_equal_ours(torch, definition, tmp_path, name, options, size):
    safetensors = pytest.importorskip("safetensors.numpy")
    weights = make(name, size, classes=3, **options)
    if name.startswith("vit"):
        state, config = torch_vit.encode(weights, size), torch_vit.config(weights.model)
    else:
        state, config = torch_resnet.encode(weights), torch_resnet.config(weights.model)
    safetensors.save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps({"ssl_jax": config}))
    model = definition.load(tmp_path)
    assert not model.training
    assert set(model.state_dict()) == set(state)
    x = images(size)
    with torch.no_grad():
        batch = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        actual, logits = model(batch).numpy(), model.logits(batch).numpy()
    expected = features(weights, x)
    error = relative(actual, expected)
    print(f"{name} {options} at {size}: {error:.1e}")
    assert error < TOLERANCE
    layer = weights.others["classifier"]["params"]["dense"]
    expected_logits = expected.astype(np.float64) @ layer["kernel"] + layer["bias"]
    assert relative(logits, expected_logits) < TOLERANCE


def test_definition_imports_only_torch():
    lines = FILE.read_text().splitlines()
    imports = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    assert {name.split(".")[0] for name in imports} == {"json", "pathlib", "torch"}
