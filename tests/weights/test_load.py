"""Tests of loading folders and files of weights, and of validating the JSON files beside them."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from ssl_jax import models
from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.export.subject import Subject
from ssl_jax.export.write import write
from ssl_jax.pretrained import backbone
from ssl_jax.weights import Weights, checksums, torch_resnet, torch_vit

IMAGES = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
MODELS = {
    "resnet": {"name": "resnet8", "width": 0.25, "stem": "cifar"},
    "vit": {"name": "vit_micro", "patch_size": 8, "positions": "learned", "pool": "mean"},
}
STATISTICS = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}


def random_backbone(model, size=32):
    """Returns a backbone with random weights."""
    encoder = models.get(**model)
    shape = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    tree = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, False), shape)
    rng = np.random.default_rng(1)
    tree = jax.tree.map(lambda x: rng.uniform(0.1, 0.2, x.shape).astype(np.float32), tree)
    weights = Weights(model, tree["params"], tree.get("batch_stats", {}))
    return backbone.Backbone(weights, size=size, crop=0.9)


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Returns {family: (exported backbone, folder of its npz export)}."""
    path = tmp_path_factory.mktemp("exports")
    folders = {}
    for family, model in MODELS.items():
        subject = Subject(random_backbone(model | STATISTICS))
        (path / family).mkdir()
        folders[family] = subject.backbone, write(subject, "npz", path / family).folder
    return folders


@pytest.mark.parametrize("family", MODELS)
def test_file_in_an_export_loads_like_the_export(exports, family):
    exported, folder = exports[family]
    for path in (folder, folder / "model.npz"):
        loaded = backbone.load(path)
        np.testing.assert_array_equal(loaded(IMAGES), exported(IMAGES))
        assert (loaded.size, loaded.crop) == (32, 0.9)
        assert loaded.weights.model["mean"] == STATISTICS["mean"]


def test_native_npz_contains_its_model(exports, tmp_path):
    exported, folder = exports["resnet"]
    shutil.copy(folder / "model.npz", tmp_path / "alone.npz")
    loaded = backbone.load(tmp_path / "alone.npz")
    np.testing.assert_array_equal(loaded(IMAGES), exported(IMAGES))


INVALID_FIELDS = [
    *[("model", {"name": "resnet8", "width": w}) for w in ("x", None, float("inf"), -1, True)],
    *[("model", {"name": "vit_micro", "patch_size": p}) for p in (0, "a", 8.0, -8, [])],
    *[("model", {"name": "resnet8", "mean": m}) for m in (5, [[1], [2], [3]], [0, 0])],
    ("model", {"name": "resnet8", "std": [1, 1, 0]}),
    ("model", {"name": "resnet8", "dtype": "float99"}),
    ("model", {"name": "resnet8", "bn_group": "x"}),
    ("model", {"name": "dbn"}),
    ("model", {"name": "dbn", "widths": 5}),
    ("model", 7),
    *[("size", value) for value in (-5, True, 10**9, "32", None, 2.5)],
    *[("crop", value) for value in ("a", None, -1, 5, float("nan"), [1])],
    *[("classes", value) for value in (5, None, True, "abc", [[1]], [1, 2], ["a", "b"])],
    ("format", 3),
]


@pytest.mark.parametrize("family", MODELS)
def test_invalid_check_json_is_refused(exports, family, tmp_path):
    folder = tmp_path / "export"
    shutil.copytree(exports[family][1], folder)
    valid = json.loads((folder / "check.json").read_text())
    for field, value in INVALID_FIELDS:
        # Sealed again, as a hostile author would do.
        record = {k: v for k, v in valid.items() if k not in ("files", "seal")} | {field: value}
        (folder / "check.json").write_text(json.dumps(checksums.seal(folder, record)))
        with pytest.raises(Fault) as refused:
            backbone.load(folder)
        assert refused.value.code == BAD_DATA, (field, value)
        assert "is damaged" not in str(refused.value), (field, value)


def write_timm_folder(folder, **changes):
    """Writes a folder in timm's Hub layout with a ResNet-18, or a ViT if `architecture` is one."""
    vit = changes.get("architecture", "").startswith("vit")
    weights = random_backbone({"name": "vit_tiny"} if vit else {"name": "resnet18"}).weights
    arrays = torch_vit.encode(weights, 32) if vit else torch_resnet.encode(weights)
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    image = {"mean": [0.1] * 3, "std": [0.5] * 3, "input_size": [3, 32, 32], "crop_pct": 0.7}
    config = {"architecture": "resnet18", "pretrained_cfg": image | changes.pop("image", {})}
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def test_timm_config_determines_image_size_and_crop(tmp_path):
    for path in (write_timm_folder(tmp_path / "a"), tmp_path / "a" / "model.safetensors"):
        loaded = backbone.load(path)
        assert (loaded.size, loaded.crop) == (32, 0.7)
        assert loaded.weights.model["mean"] == (0.1, 0.1, 0.1)
    vit = write_timm_folder(
        tmp_path / "b", architecture="vit_tiny_patch16_224", model_args={"img_size": 32}
    )
    assert backbone.load(vit).weights.model["name"] == "vit_tiny"


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "resnetaa18"},
        {"architecture": "resnet34"},
        {"architecture": "vit_tiny_patch16_clip_224"},
        {"model_args": {"output_stride": 8}},
        {"model_args": {"act_layer": "silu"}},
        {"model_args": "num_heads"},
        *[{"image": {"mean": value}} for value in (5, None, ["x"] * 3)],
        *[{"image": {"crop_pct": value}} for value in (None, "a", -1, [])],
        *[{"image": {"input_size": value}} for value in (None, 5, [], "32", [3, None])],
        {"label_names": 5},
        {"pretrained_cfg": 3},
    ],
)
def test_unsupported_network_or_invalid_timm_config_is_refused(tmp_path, changes):
    with pytest.raises(Fault) as refused:
        backbone.load(write_timm_folder(tmp_path / "hub", **changes))
    assert refused.value.code == BAD_DATA


def test_positions_that_do_not_form_a_square_are_refused(tmp_path):
    arrays = torch_vit.encode(random_backbone({"name": "vit_micro", "patch_size": 8}).weights, 32)
    arrays["pos_embed"] = np.ones((1, 22, 64), np.float32)
    safetensors.numpy.save_file(arrays, tmp_path / "vit.safetensors")
    with pytest.raises(Fault, match=r"21 positions .* do not form a square"):
        backbone.load(tmp_path / "vit.safetensors")
