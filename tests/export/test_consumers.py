"""Tests that timm, torchvision, PyTorch and ONNX Runtime read exports and give our features."""

import json

import numpy as np
import pytest
import random_weights
from subjects import PLAIN, STANDARD, assert_near, expected_outputs, export, make_subject, run_code

RESNETS = [
    ("resnet18", 64, {}),
    ("resnet50", 96, STANDARD),
]
VITS = [
    ("vit_micro", 32, {"patch_size": 4, "pool": "mean", "mlp_ratio": 2}),
    ("vit_small_moco", 64, {"positions": "learned", **STANDARD}),
    ("vit_small", 224, {}),
]


def case_id(case):
    return case[0]


def standardised(torch, images, options):
    """Returns images as users of timm and torchvision pass them: NCHW and standardised."""
    mean, std = (
        np.float32(options.get(k, d)) for k, d in (("mean", [0.0] * 3), ("std", [1.0] * 3))
    )
    return torch.from_numpy(((images - mean[None]) / std[None]).transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("case", [*RESNETS, *VITS[:2]], ids=case_id)
def test_timm_reads_folder_and_file(torch, timm, tmp_path, case, head):
    name, size, options = case
    subject = make_subject(name, size, head=head, **options)
    folder, check, usage = export(subject, "timm", tmp_path)
    assert check["error"].keys() == {"jax", "torch"}
    images = random_weights.images(size, n=3)
    features, logits = expected_outputs(subject, images)
    code_for_folder, code_for_file = usage.split("# or with the file alone:\n")
    with torch.no_grad():
        batch = standardised(torch, images, options)
        variables = run_code(code_for_folder, images=batch)
        assert_near(variables["features"].numpy(), features)
        model = run_code("import timm\n" + code_for_file)["model"]
        assert_near(model(batch).numpy(), logits if head else features)
        if head:
            assert_near(variables["logits"].numpy(), logits)
    config = variables["model"].pretrained_cfg
    mean, std = options.get("mean", (0,) * 3), options.get("std", (1,) * 3)
    assert (tuple(config["mean"]), tuple(config["std"])) == (mean, std)
    assert (tuple(config["input_size"]), config["crop_pct"]) == ((3, size, size), 0.875)
    assert config["license"] == "mit"
    assert variables["model"].num_classes == (3 if head else 0)
    if head:
        assert config["label_names"] == list(PLAIN)
    text = json.loads((folder / "config.json").read_text())
    assert text["num_features"] == features.shape[1] == variables["model"].num_features


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("case", RESNETS, ids=case_id)
def test_torchvision_reads_file(torch, torchvision, tmp_path, case, head):
    name, size, options = case
    subject = make_subject(name, size, head=head, **options)
    _, _, usage = export(subject, "torchvision", tmp_path)
    images = random_weights.images(size, n=3)
    features, logits = expected_outputs(subject, images)
    with torch.no_grad():
        variables = run_code(usage, images=standardised(torch, images, options))
    assert_near(variables["logits" if head else "features"].numpy(), logits if head else features)


def test_torch_export_contains_its_definition(torch, tmp_path, monkeypatch):
    import sys

    subject = make_subject("resnet10", 32, head=True, width=0.5, stem="cifar", **STANDARD)
    _, check, usage = export(subject, "torch", tmp_path)
    assert check["error"].keys() == {"jax", "torch"}
    images = random_weights.images(32, n=3)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "model", raising=False)
    with torch.no_grad():
        batch = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        variables = run_code(usage, images=batch)
    monkeypatch.delitem(sys.modules, "model")
    features, logits = expected_outputs(subject, images)
    assert_near(variables["features"].numpy(), features)
    assert_near(variables["logits"].numpy(), logits)


@pytest.mark.parametrize("head", [False, True])
def test_timm_reads_googles_npz(torch, timm, tmp_path, head):
    name, size, options = VITS[0]
    subject = make_subject(name, size, head=head, **options)
    folder, _, usage = export(subject, "npz", tmp_path)
    with np.load(folder / "model.npz", allow_pickle=False) as arrays:
        assert "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel" in arrays
    images = random_weights.images(size, n=3)
    with torch.no_grad():
        actual = run_code(usage)["model"](standardised(torch, images, options)).numpy()
    assert_near(actual, expected_outputs(subject, images)[head])


@pytest.mark.parametrize(
    ("case", "head"),
    [
        (("resnet50", 64, {"width": 0.25, "sk_ratio": 0.0625, **STANDARD}), False),
        (("resnet10", 32, {"width": 0.25, "padding": "same"}), True),
        (VITS[0], True),
    ],
    ids=str,
)
def test_onnx_runtime_reads_file(torch, tmp_path, case, head):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    name, size, options = case
    subject = make_subject(name, size, head=head, **options)
    folder, _, usage = export(subject, "onnx", tmp_path)
    assert not list(folder.glob("*.data"))  # the weights are in the one file
    images = random_weights.images(size, n=3)
    variables = run_code(usage, images=np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    features, logits = expected_outputs(subject, images)
    assert_near(variables["features"], features)
    if head:
        assert_near(variables["logits"], logits)


def test_timm_reads_vit_small_at_its_usual_size(torch, timm, tmp_path):
    name, size, options = VITS[2]
    subject = make_subject(name, size, **options)
    _, _, usage = export(subject, "timm", tmp_path)
    images = random_weights.images(size, n=1)
    with torch.no_grad():
        actual = run_code(usage, images=standardised(torch, images, options))["features"].numpy()
    assert_near(actual, expected_outputs(subject, images)[0])
