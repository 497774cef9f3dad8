"""Formats that need no PyTorch, read by what reads them: NumPy, Orbax, JAX alone, TensorFlow."""

import json
import subprocess
import sys

import jax
import jax.export
import numpy as np
import orbax.checkpoint as ocp
import pytest
import random_weights
from subjects import PLAIN, STANDARD, exported, follow, near, subject, wanted

import ssl_jax
from ssl_jax import models
from ssl_jax.errors import BAD_CONFIG, MISSING_INPUT, USAGE, Fault
from ssl_jax.export import FORMATS, formats
from ssl_jax.export.subject import variables_of
from ssl_jax.weights import Weights

RESNET = ("resnet8", 32, {"width": 0.25, "stem": "cifar", **STANDARD})
VIT = ("vit_micro", 16, {"patch_size": 4, "pool": "mean"})
DBN = ("dbn", 8, {"widths": (12, 8)})
IMAGES = np.random.default_rng(1).uniform(size=(3, 32, 32, 3)).astype(np.float32)


def cut(size):
    return IMAGES[:, :size, :size]


@pytest.mark.parametrize(("name", "size", "options"), [VIT, DBN], ids=lambda x: str(x))
def test_stablehlo_takes_any_batch(tmp_path, name, size, options):
    one = subject(name, size, **options)
    _, _, usage = exported(one, "stablehlo", tmp_path)
    for images in (cut(size), cut(size)[:1]):
        near(follow(usage, images=images)["features"], wanted(one, images)[0])


def test_selective_kernels_do_not_count_the_batch():
    one = subject("resnet50", 32, width=0.25, sk_ratio=0.0625)
    images = jax.ShapeDtypeStruct(jax.export.symbolic_shape("n, 32, 32, 3"), np.float32)
    features = jax.eval_shape(one.forward, variables_of(one.weights), images)[0]
    assert features.shape == (images.shape[0], 512)


def test_stablehlo_runs_where_only_jax_is(tmp_path):
    name, size, options = RESNET
    one = subject(name, size, head=True, **options)
    _, _, usage = exported(one, "stablehlo", tmp_path)
    np.save(tmp_path / "images.npy", cut(size))
    code = f"""
import sys
import numpy as np
images = np.load({str(tmp_path / "images.npy")!r})
{usage}
np.save({str(tmp_path / "features.npy")!r}, features)
np.save({str(tmp_path / "logits.npy")!r}, logits)
assert not {{"ssl_jax", "flax", "orbax", "tensorflow", "torch"}} & sys.modules.keys()
"""
    # -I: the working folder, where our package lies, is not on the path.
    subprocess.run([sys.executable, "-I", "-c", code], check=True, timeout=120)
    features, logits = wanted(one, cut(size))
    near(np.load(tmp_path / "features.npy"), features)
    near(np.load(tmp_path / "logits.npy"), logits)


def test_a_classifier_behind_kept_layers_is_part_of_the_program(tmp_path):
    name, size, options = RESNET
    one = subject(name, size, head=True, kept=1, **options)
    _, _, usage = exported(one, "stablehlo", tmp_path)
    found = follow(usage, images=cut(size))
    features = random_weights.features(one.backbone.weights, cut(size)).astype(np.float64)
    others = one.backbone.weights.others
    params, stats = others["head"]["params"], others["head"]["batch_stats"]["bn0"]
    hidden = features @ params["dense0"]["kernel"] - stats["mean"]
    hidden = hidden / np.sqrt(stats["var"] + 1e-5) * params["bn0"]["scale"] + params["bn0"]["bias"]
    layer = others["classifier"]["params"]["dense"]
    near(found["logits"], np.maximum(hidden, 0) @ layer["kernel"] + layer["bias"])
    for other in ("timm", "torchvision", "torch", "onnx"):
        with pytest.raises(Fault, match=r"timm has no|torchvision has no|needs|stands behind"):
            formats.get(other).refuse(one)


def test_savedmodel(tmp_path):
    name, size, options = RESNET
    one = subject(name, size, head=True, **options)
    _, _, usage = exported(one, "savedmodel", tmp_path)
    for images in (cut(size), cut(size)[:1]):
        found = follow(usage, images=images)
        features, logits = wanted(one, images)
        near(found["features"], features)
        near(found["logits"], logits)


def test_orbax_and_npz_hold_every_array(tmp_path):
    name, size, options = RESNET
    one = subject(name, size, head=True, kept=1, **options)
    weights = one.backbone.weights
    _, _, usage = exported(one, "orbax", tmp_path)
    found = follow(usage)
    for key in ("params", "batch_stats", "others"):
        jax.tree.map(np.testing.assert_array_equal, found[key], getattr(weights, key))
    folder, check, usage = exported(one, "npz", tmp_path)
    arrays = follow(usage)["arrays"]
    np.testing.assert_array_equal(arrays["params/conv1/kernel"], weights.params["conv1"]["kernel"])
    others = weights.others["head"]["params"]["dense0"]["kernel"]
    np.testing.assert_array_equal(arrays["others/head/params/dense0/kernel"], others)
    assert json.loads(str(arrays["model"])) == check["model"]
    assert check["classes"] == list(PLAIN)
    # Without --head nothing behind the encoder travels.
    plain = subject(name, size, **options)
    folder, check, _ = exported(plain, "orbax", tmp_path)
    with ocp.StandardCheckpointer() as reader:
        assert set(reader.restore(folder / "backbone")) == {"params", "batch_stats"}
    folder, _, _ = exported(plain, "npz", tmp_path)
    with np.load(folder / "model.npz", allow_pickle=False) as arrays:
        assert not [key for key in arrays if key.startswith("others")]
    assert check["classes"] == []


@pytest.mark.parametrize(("name", "size", "options"), [RESNET, VIT], ids=lambda x: str(x))
def test_the_check_is_repeated_from_what_it_says(tmp_path, name, size, options):
    one = subject(name, size, head=True, **options)
    for kind in ("torch", "npz", "orbax"):
        folder, check, usage = exported(one, kind, tmp_path)
        assert check["input"]["layout"] == ("NCHW" if kind == "torch" else "NHWC")
        rng = np.random.default_rng(check["input"]["seed"])
        images = rng.uniform(size=check["input"]["shape"]).astype(np.float32)
        features, logits = wanted(one, images)
        near(check["features"], features)
        near(check["logits"], logits)
        assert check["tolerance"] == 1e-5
        assert (check["size"], check["crop"], check["origin"]) == (size, 0.875, "run, step 7")
        model = {k: tuple(v) if isinstance(v, list) else v for k, v in check["model"].items()}
        assert models.get(**model) == models.get(**one.model)
        words = json.loads((folder / "preprocess.json").read_text())
        assert (words["size"], words["layout"]) == (size, check["input"]["layout"])
        card = (folder / "README.md").read_text()
        assert "mit" in card
        line = usage.splitlines()[0]
        assert line in card or "DIR" in card


@pytest.mark.parametrize(("name", "size", "options"), [RESNET, VIT, DBN], ids=lambda x: str(x))
@pytest.mark.parametrize("kept", [None, 1])
def test_what_was_exported_is_loaded_and_leaves_again(tmp_path, name, size, options, kept):
    one = subject(name, size, head=True, kept=kept, **options)
    for kind in ("torch", "npz", "orbax"):
        if kind == "torch" and (kept or name == "dbn"):
            continue
        folder, _, _ = exported(one, kind, tmp_path)
        again = ssl_jax.load_backbone(folder)
        assert (again.size, again.crop, again.classes) == (size, 0.875, PLAIN)
        assert models.get(**again.weights.model) == models.get(**one.model)
        assert again.origin == one.backbone.origin
        for tree, other in zip(again.weights[1:], one.weights[1:], strict=True):
            jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_what_a_format_cannot_hold_is_refused_with_the_reason():
    resnet = subject("resnet10", 32, width=0.25)
    for name, says in (("timm", "no resnet10, only"), ("torchvision", "width 0.25")):
        with pytest.raises(Fault, match=says) as refused:
            formats.get(name).refuse(resnet)
        assert "--format=torch" in str(refused.value)
        assert refused.value.code == USAGE
    with pytest.raises(Fault, match="dbn: only ResNets and ViTs"):
        formats.get("torch").refuse(subject("dbn", 8, widths=(4,)))
    one = subject("vit_micro", 16, patch_size=4, head=True)
    weights = one.backbone.weights
    others = {"projection": weights.others["classifier"]}
    no_classifier = Weights(weights.model, weights.params, weights.batch_stats, others)
    object.__setattr__(one.backbone, "weights", no_classifier)
    for name in FORMATS:
        if name in ("npz", "orbax"):
            formats.get(name).refuse(one)
        elif name not in ("onnx", "torchvision"):
            with pytest.raises(Fault, match="run, step 7 has no classifier") as refused:
                formats.get(name).refuse(one)
            assert refused.value.code == BAD_CONFIG


def test_onnx_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Fault, match="pip install torch onnx onnxscript onnxruntime") as refused:
        formats.get("onnx").refuse(subject("vit_micro", 16, patch_size=4))
    assert refused.value.code == MISSING_INPUT


def test_one_file_holds_2_gib_at_most(monkeypatch):
    one = subject("dbn", 8, widths=(4,))
    monkeypatch.setattr(type(one), "bytes", 2**31)
    with pytest.raises(Fault, match="2 GiB at most"):
        formats.get("stablehlo").refuse(one)
