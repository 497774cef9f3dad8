"""Exports read by the libraries they are for: timm, torchvision, PyTorch alone, ONNX Runtime."""

import runpy

import drawn
import numpy as np
import pytest

from ssl_jax.export import check
from ssl_jax.export.subject import Subject
from ssl_jax.export.write import write

TOLERANCE = 1e-5  # of the largest output
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
MODELS = {
    "resnet18": ({"name": "resnet18"}, 64),
    "resnet50": ({"name": "resnet50", **IMAGENET}, 64),
    "vit_small": ({"name": "vit_small", "patch_size": 16}, 224),
    "vit_small_moco": ({"name": "vit_small_moco", "patch_size": 16, "pool": "mean"}, 64),
}
OURS = MODELS | {
    "wide, CIFAR": ({"name": "resnet10", "width": 2.0, "stem": "cifar"}, 32),
    "SK": ({"name": "resnet50", "width": 0.5, "sk_ratio": 0.0625, "padding": "simclr"}, 64),
}


def relative(got, want):
    return np.abs(np.asarray(got) - want).max() / np.abs(want).max()


def standardised(subject, torch):
    """check.images as a consumer that standardises by itself gives them."""
    mean, std = (np.float32(v) for v in subject.standardisation)
    images = (check.images(subject.size) - mean.reshape(1, 1, 1, 3)) / std.reshape(1, 1, 1, 3)
    return torch.from_numpy(check.nchw(images))


def want(subject):
    return subject.run_weights(subject.weights, check.images(subject.size))


@pytest.mark.parametrize("name", MODELS)
def test_timm(timm, torch, name, tmp_path):
    model, size = MODELS[name]
    subject = Subject(drawn.backbone(model, size, classes=5), head=name == "resnet18")
    folder = write(subject, "timm", tmp_path).folder
    net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = standardised(subject, torch)
    with torch.no_grad():
        features = net.forward_head(net.forward_features(images), pre_logits=True).numpy()
        logits = net(images).numpy()
    assert relative(features, want(subject)["features"]) < TOLERANCE
    if subject.head:
        assert relative(logits, want(subject)["logits"]) < TOLERANCE
    cut = net.pretrained_cfg
    assert (tuple(cut["mean"]), tuple(cut["std"])) == subject.standardisation
    assert tuple(cut["input_size"]) == (3, size, size)


@pytest.mark.parametrize("name", ["resnet18", "vit_small_moco"])
def test_timm_by_the_file_alone(timm, torch, name, tmp_path):
    model, size = MODELS[name]
    subject = Subject(drawn.backbone(model, size))
    usage = write(subject, "timm", tmp_path).usage.splitlines()
    call = "\n".join(usage[usage.index("# or by the file alone:") + 1 :])
    names = {"timm": timm}
    exec(call, names)
    with torch.no_grad():
        features = names["model"](standardised(subject, torch)).numpy()
    assert relative(features, want(subject)["features"]) < TOLERANCE


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvision_strict(torchvision, torch, name, tmp_path):
    model, size = MODELS[name]
    subject = Subject(drawn.backbone(model, size))
    usage = write(subject, "torchvision", tmp_path).usage
    assert "strict=True" in usage
    names = {"images": standardised(subject, torch)}
    with torch.no_grad():
        exec(usage, names)
    assert relative(names["features"].numpy(), want(subject)["features"]) < TOLERANCE


@pytest.mark.parametrize("name", OURS)
def test_onnxruntime(torchvision, name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, size = OURS[name]
    subject = Subject(drawn.backbone(model, size))
    folder = write_quietly(subject, "onnx", tmp_path)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    images = check.nchw(np.concatenate([check.images(size)] * 2)[:3])
    (features,) = session.run(None, {"images": images})
    full = np.concatenate([want(subject)["features"]] * 2)[:3]
    assert relative(features, full) < TOLERANCE


def write_quietly(subject, name, path):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return write(subject, name, path).folder


@pytest.mark.parametrize("name", ["wide, CIFAR", "SK", "vit_small_moco"])
def test_pytorch_alone(torch, name, tmp_path):
    model, size = OURS[name]
    subject = Subject(drawn.backbone(model, size, classes=4), head=True)
    folder = write(subject, "torch", tmp_path).folder
    net = runpy.run_path(str(folder / "model.py"))["load"](folder)
    images = torch.from_numpy(check.nchw(check.images(size)))
    with torch.no_grad():
        found = {"features": net(images).numpy(), "logits": net.logits(images).numpy()}
    for output, value in want(subject).items():
        assert relative(found[output], value) < TOLERANCE


def test_timm_reads_googles_npz(timm, torch, tmp_path):
    model, size = MODELS["vit_small"]
    subject = Subject(drawn.backbone(model, size))
    names = {}
    exec(write(subject, "npz", tmp_path).usage, names)
    with torch.no_grad():
        features = names["model"](standardised(subject, torch)).numpy()
    assert relative(features, want(subject)["features"]) < TOLERANCE
