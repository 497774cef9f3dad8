"""Tests of formats that do not need PyTorch, read by NumPy, Orbax, JAX alone and TensorFlow."""

import json
import subprocess
import sys

import jax
import jax.export
import numpy as np
import orbax.checkpoint as ocp
import pytest
import random_weights
from subjects import PLAIN, STANDARD, assert_near, expected_outputs, export, make_subject, run_code

import ssl_jax
from ssl_jax import models
from ssl_jax.errors import BAD_CONFIG, MISSING_INPUT, USAGE, Fault
from ssl_jax.export import FORMATS, formats
from ssl_jax.export.subject import variables_tree
from ssl_jax.weights import Weights

RESNET = ("resnet8", 32, {"width": 0.25, "stem": "cifar", **STANDARD})
VIT = ("vit_micro", 16, {"patch_size": 4, "pool": "mean"})
PATCH_OPTIONS = {"width": 0.25, "stem": "cifar", "norm": "layer", "patch": 8, "patch_stride": 4}
PATCHES = ("resnet8", 16, PATCH_OPTIONS)
DBN = ("dbn", 8, {"widths": (12, 8)})
LIGHTNESS = ("resnet8", 16, {"width": 0.25, "stem": "cifar", "colors": "lightness"})
SPLIT = ("split_resnet8", 16, {"width": 0.25, "colors": "lab", "first": (0,), "second": (1, 2)})
SDAE = ("sdae", 8, {"widths": (6, 4), "kind": "convolutional"})
IMAGES = np.random.default_rng(1).uniform(size=(3, 32, 32, 3)).astype(np.float32)


def crop(size):
    return IMAGES[:, :size, :size]


@pytest.mark.parametrize(
    ("name", "size", "options"), [VIT, DBN, PATCHES, LIGHTNESS, SPLIT], ids=lambda x: str(x)
)
def test_stablehlo_accepts_any_batch_size(tmp_path, name, size, options):
    subject = make_subject(name, size, **options)
    _, _, usage = export(subject, "stablehlo", tmp_path)
    for images in (crop(size), crop(size)[:1]):
        actual = run_code(usage, images=images)["features"]
        assert_near(actual, expected_outputs(subject, images)[0])


def test_selective_kernels_support_symbolic_batch_size():
    subject = make_subject("resnet50", 32, width=0.25, sk_ratio=0.0625)
    images = jax.ShapeDtypeStruct(jax.export.symbolic_shape("n, 32, 32, 3"), np.float32)
    features = jax.eval_shape(subject.forward, variables_tree(subject.weights), images)[0]
    assert features.shape == (images.shape[0], 512)


def test_stablehlo_needs_only_jax(tmp_path):
    name, size, options = RESNET
    subject = make_subject(name, size, head=True, **options)
    _, _, usage = export(subject, "stablehlo", tmp_path)
    np.save(tmp_path / "images.npy", crop(size))
    code = f"""
import sys
import numpy as np
images = np.load({str(tmp_path / "images.npy")!r})
{usage}
np.save({str(tmp_path / "features.npy")!r}, features)
np.save({str(tmp_path / "logits.npy")!r}, logits)
assert not {{"ssl_jax", "flax", "orbax", "tensorflow", "torch"}} & sys.modules.keys()
"""
    # -I leaves the working folder, which holds our package, off the path.
    subprocess.run([sys.executable, "-I", "-c", code], check=True, timeout=120)
    features, logits = expected_outputs(subject, crop(size))
    assert_near(np.load(tmp_path / "features.npy"), features)
    assert_near(np.load(tmp_path / "logits.npy"), logits)


def test_stablehlo_contains_classifier_behind_head_layers(tmp_path):
    name, size, options = RESNET
    subject = make_subject(name, size, head=True, head_layers=1, **options)
    _, _, usage = export(subject, "stablehlo", tmp_path)
    variables = run_code(usage, images=crop(size))
    features = random_weights.features(subject.backbone.weights, crop(size)).astype(np.float64)
    others = subject.backbone.weights.others
    params, stats = others["head"]["params"], others["head"]["batch_stats"]["bn0"]
    hidden = features @ params["dense0"]["kernel"] - stats["mean"]
    hidden = hidden / np.sqrt(stats["var"] + 1e-5) * params["bn0"]["scale"] + params["bn0"]["bias"]
    layer = others["classifier"]["params"]["dense"]
    assert_near(variables["logits"], np.maximum(hidden, 0) @ layer["kernel"] + layer["bias"])
    for other in ("timm", "torchvision", "torch", "onnx"):
        with pytest.raises(Fault, match=r"timm has no|torchvision has no|needs|is behind layers"):
            formats.get(other).check_supported(subject)


def test_savedmodel_accepts_any_batch_size(tmp_path):
    name, size, options = RESNET
    subject = make_subject(name, size, head=True, **options)
    _, _, usage = export(subject, "savedmodel", tmp_path)
    for images in (crop(size), crop(size)[:1]):
        variables = run_code(usage, images=images)
        features, logits = expected_outputs(subject, images)
        assert_near(variables["features"], features)
        assert_near(variables["logits"], logits)


def test_orbax_and_npz_hold_every_array(tmp_path):
    name, size, options = RESNET
    subject = make_subject(name, size, head=True, head_layers=1, **options)
    weights = subject.backbone.weights
    _, _, usage = export(subject, "orbax", tmp_path)
    variables = run_code(usage)
    for key in ("params", "batch_stats", "others"):
        jax.tree.map(np.testing.assert_array_equal, variables[key], getattr(weights, key))
    folder, check, usage = export(subject, "npz", tmp_path)
    arrays = run_code(usage)["arrays"]
    np.testing.assert_array_equal(arrays["params/conv1/kernel"], weights.params["conv1"]["kernel"])
    others = weights.others["head"]["params"]["dense0"]["kernel"]
    np.testing.assert_array_equal(arrays["others/head/params/dense0/kernel"], others)
    assert json.loads(str(arrays["model"])) == check["model"]
    assert check["classes"] == list(PLAIN)
    # Without --head, modules behind the encoder are not exported.
    plain = make_subject(name, size, **options)
    folder, check, _ = export(plain, "orbax", tmp_path)
    with ocp.StandardCheckpointer() as reader:
        assert set(reader.restore(folder / "backbone")) == {"params", "batch_stats"}
    folder, _, _ = export(plain, "npz", tmp_path)
    with np.load(folder / "model.npz", allow_pickle=False) as arrays:
        assert not [key for key in arrays if key.startswith("others")]
    assert check["classes"] == []


@pytest.mark.parametrize(("name", "size", "options"), [RESNET, VIT], ids=lambda x: str(x))
def test_check_json_describes_how_to_repeat_the_check(tmp_path, name, size, options):
    subject = make_subject(name, size, head=True, **options)
    for kind in ("torch", "npz", "orbax"):
        folder, check, usage = export(subject, kind, tmp_path)
        assert check["input"]["layout"] == ("NCHW" if kind == "torch" else "NHWC")
        rng = np.random.default_rng(check["input"]["seed"])
        images = rng.uniform(size=check["input"]["shape"]).astype(np.float32)
        features, logits = expected_outputs(subject, images)
        assert_near(check["features"], features)
        assert_near(check["logits"], logits)
        assert check["tolerance"] == 1e-5
        assert (check["size"], check["crop"], check["origin"]) == (size, 0.875, "run, step 7")
        model = {k: tuple(v) if isinstance(v, list) else v for k, v in check["model"].items()}
        assert models.get(**model) == models.get(**subject.model)
        words = json.loads((folder / "preprocess.json").read_text())
        assert (words["size"], words["layout"]) == (size, check["input"]["layout"])
        card = (folder / "README.md").read_text()
        assert "mit" in card
        line = usage.splitlines()[0]
        assert line in card or "DIR" in card


@pytest.mark.parametrize(
    ("name", "size", "options"), [RESNET, VIT, DBN, SDAE, LIGHTNESS, SPLIT], ids=lambda x: str(x)
)
@pytest.mark.parametrize("head_layers", [None, 1])
def test_load_backbone_reads_exports(tmp_path, name, size, options, head_layers):
    subject = make_subject(name, size, head=True, head_layers=head_layers, **options)
    for kind in ("torch", "npz", "orbax"):
        unfit = (DBN, SDAE, LIGHTNESS, SPLIT)
        if kind == "torch" and (head_layers or (name, size, options) in unfit):
            continue
        folder, _, _ = export(subject, kind, tmp_path)
        loaded = ssl_jax.load_backbone(folder)
        assert (loaded.size, loaded.crop, loaded.classes) == (size, 0.875, PLAIN)
        assert models.get(**loaded.weights.model) == models.get(**subject.model)
        assert loaded.origin == subject.backbone.origin
        for tree, other in zip(loaded.weights[1:], subject.weights[1:], strict=True):
            jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_unsupported_subject_is_refused_with_reason():
    resnet = make_subject("resnet10", 32, width=0.25)
    for name, message in (("timm", "no resnet10, only"), ("torchvision", "width 0.25")):
        with pytest.raises(Fault, match=message) as refused:
            formats.get(name).check_supported(resnet)
        assert "--format=torch" in str(refused.value)
        assert refused.value.code == USAGE
    with pytest.raises(Fault, match="dbn: only ResNets and ViTs"):
        formats.get("torch").check_supported(make_subject("dbn", 8, widths=(4,)))
    lightness = make_subject("resnet18", 32, width=0.125, colors="lightness")
    for name in ("torch", "timm", "torchvision"):
        with pytest.raises(Fault, match=r"sees the lightness of images.*--format=npz, stablehlo"):
            formats.get(name).check_supported(lightness)
    with pytest.raises(Fault, match="split_resnet10: only ResNets and ViTs"):
        formats.get("torch").check_supported(make_subject("split_resnet10", 32, width=0.25))
    name, size, options = PATCHES
    for format_name in ("torch", "timm", "torchvision"):
        with pytest.raises(Fault, match=r"no model\.norm=layer and no model\.patch=8") as refused:
            formats.get(format_name).check_supported(make_subject(name, size, **options))
        assert refused.value.code == USAGE
    subject = make_subject("vit_micro", 16, patch_size=4, head=True)
    weights = subject.backbone.weights
    others = {"projection": weights.others["classifier"]}
    no_classifier = Weights(weights.model, weights.params, weights.batch_stats, others)
    object.__setattr__(subject.backbone, "weights", no_classifier)
    for name in FORMATS:
        if name in ("npz", "orbax"):
            formats.get(name).check_supported(subject)
        elif name not in ("onnx", "torchvision"):
            with pytest.raises(Fault, match="run, step 7 has no classifier") as refused:
                formats.get(name).check_supported(subject)
            assert refused.value.code == BAD_CONFIG


def test_onnx_names_missing_packages(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Fault, match="pip install torch onnx onnxscript onnxruntime") as refused:
        formats.get("onnx").check_supported(make_subject("vit_micro", 16, patch_size=4))
    assert refused.value.code == MISSING_INPUT


def test_weights_above_2_gib_are_refused(monkeypatch):
    subject = make_subject("dbn", 8, widths=(4,))
    monkeypatch.setattr(type(subject), "bytes", 2**31)
    with pytest.raises(Fault, match="limited to 2 GiB"):
        formats.get("stablehlo").check_supported(subject)
