"""Exports read by timm, torchvision and ONNX Runtime, at the sizes that people use."""

import json

import numpy as np
import pytest
import random_weights
from subjects import PLAIN, STANDARD, exported, follow, near, subject, wanted

RESNETS = [
    ("resnet18", 64, {}),
    ("resnet50", 96, STANDARD),
]
VITS = [
    ("vit_micro", 32, {"patch_size": 4, "pool": "mean", "mlp_ratio": 2}),
    ("vit_small_moco", 64, {"positions": "learned", **STANDARD}),
    ("vit_small", 224, {}),
]


def label(case):
    return case[0]


def standardised(torch, images, options):
    """What timm's and torchvision's users give: NCHW, less the mean, over the deviation."""
    mean, std = (
        np.float32(options.get(k, d)) for k, d in (("mean", [0.0] * 3), ("std", [1.0] * 3))
    )
    return torch.from_numpy(((images - mean[None]) / std[None]).transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("case", [*RESNETS, *VITS[:2]], ids=label)
def test_timm_by_folder_and_by_file(torch, timm, tmp_path, case, head):
    name, size, options = case
    one = subject(name, size, head=head, **options)
    folder, check, usage = exported(one, "timm", tmp_path)
    assert check["error"].keys() == {"jax", "torch"}
    images = random_weights.images(size, n=3)
    features, logits = wanted(one, images)
    by_folder, by_file = usage.split("# or by the file alone:\n")
    with torch.no_grad():
        given = standardised(torch, images, options)
        found = follow(by_folder, images=given)
        near(found["features"].numpy(), features)
        model = follow("import timm\n" + by_file)["model"]
        near(model(given).numpy(), logits if head else features)
        if head:
            near(found["logits"].numpy(), logits)
    config = found["model"].pretrained_cfg
    mean, std = options.get("mean", (0,) * 3), options.get("std", (1,) * 3)
    assert (tuple(config["mean"]), tuple(config["std"])) == (mean, std)
    assert (tuple(config["input_size"]), config["crop_pct"]) == ((3, size, size), 0.875)
    assert config["license"] == "mit"
    assert found["model"].num_classes == (3 if head else 0)
    if head:
        assert config["label_names"] == list(PLAIN)
    text = json.loads((folder / "config.json").read_text())
    assert text["num_features"] == features.shape[1] == found["model"].num_features


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("case", RESNETS, ids=label)
def test_torchvision(torch, torchvision, tmp_path, case, head):
    name, size, options = case
    one = subject(name, size, head=head, **options)
    _, _, usage = exported(one, "torchvision", tmp_path)
    images = random_weights.images(size, n=3)
    features, logits = wanted(one, images)
    with torch.no_grad():
        found = follow(usage, images=standardised(torch, images, options))
    near(found["logits" if head else "features"].numpy(), logits if head else features)


def test_torch_brings_its_definition_along(torch, tmp_path, monkeypatch):
    import sys

    one = subject("resnet10", 32, head=True, width=0.5, stem="cifar", **STANDARD)
    _, check, usage = exported(one, "torch", tmp_path)
    assert check["error"].keys() == {"jax", "torch"}
    images = random_weights.images(32, n=3)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "model", raising=False)
    with torch.no_grad():
        batch = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        found = follow(usage, images=batch)
    monkeypatch.delitem(sys.modules, "model")
    features, logits = wanted(one, images)
    near(found["features"].numpy(), features)
    near(found["logits"].numpy(), logits)


@pytest.mark.parametrize("head", [False, True])
def test_timm_reads_googles_npz(torch, timm, tmp_path, head):
    name, size, options = VITS[0]
    one = subject(name, size, head=head, **options)
    folder, _, usage = exported(one, "npz", tmp_path)
    with np.load(folder / "model.npz", allow_pickle=False) as arrays:
        assert "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel" in arrays
    images = random_weights.images(size, n=3)
    with torch.no_grad():
        found = follow(usage)["model"](standardised(torch, images, options)).numpy()
    near(found, wanted(one, images)[head])


@pytest.mark.parametrize(
    ("case", "head"),
    [
        (("resnet50", 64, {"width": 0.25, "sk_ratio": 0.0625, **STANDARD}), False),
        (("resnet10", 32, {"width": 0.25, "padding": "same"}), True),
        (VITS[0], True),
    ],
    ids=str,
)
def test_onnx(torch, tmp_path, case, head):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    name, size, options = case
    one = subject(name, size, head=head, **options)
    folder, _, usage = exported(one, "onnx", tmp_path)
    assert not list(folder.glob("*.data"))  # all in the one file
    images = random_weights.images(size, n=3)
    found = follow(usage, images=np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    features, logits = wanted(one, images)
    near(found["features"], features)
    if head:
        near(found["logits"], logits)


def test_vit_small_as_people_use_it(torch, timm, tmp_path):
    name, size, options = VITS[2]
    one = subject(name, size, **options)
    _, _, usage = exported(one, "timm", tmp_path)
    images = random_weights.images(size, n=1)
    with torch.no_grad():
        found = follow(usage, images=standardised(torch, images, options))["features"].numpy()
    near(found, wanted(one, images)[0])
