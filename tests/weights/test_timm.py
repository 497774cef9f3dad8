"""Tests that timm and torchvision load our weights with their own loaders and agree on features."""

import numpy as np
import pytest
from random_weights import assert_same, features, images, make, relative

from ssl_jax.errors import Fault
from ssl_jax.weights import layouts, npz_vit, torch_resnet, torch_vit

TOLERANCE = 1e-5  # of the largest output


def run(model, x):
    import torch

    with torch.no_grad():
        return model.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()


def state(arrays):
    import torch

    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def assert_near(actual, expected, what):
    error = relative(actual, expected)
    print(f"{what}: {error:.1e}")
    assert error < TOLERANCE


def logits(weights, x):
    layer = weights.others["classifier"]["params"]["dense"]
    return features(weights, x).astype(np.float64) @ layer["kernel"] + layer["bias"]


@pytest.mark.parametrize(("name", "size"), [("resnet18", 75), ("resnet50", 64)])
def test_resnets_agree_with_timm_and_torchvision(timm, torchvision, name, size):
    weights, x = make(name, classes=7), images(size)
    model = weights.model
    arrays = torch_resnet.encode(weights)
    theirs = timm.create_model(torch_resnet.timm_name(model), num_classes=7)
    theirs.load_state_dict(state(arrays))
    assert_near(run(theirs, x), logits(weights, x), f"timm {name}")
    vision = torchvision.models.get_model(torch_resnet.torchvision_name(model), num_classes=7)
    vision.load_state_dict(state(arrays), strict=True)
    assert_near(run(vision, x), logits(weights, x), f"torchvision {name}")
    # The other direction: decode the state of torchvision's model.
    their_state = {k: v.numpy() for k, v in vision.state_dict().items()}
    assert_same(layouts.decode(their_state), weights)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("vit_small", {"positions": "learned"}, 224),
        ("vit_small_moco", {"pool": "mean"}, 64),
        ("vit_micro", {"patch_size": 8, "mlp_ratio": 2}, 48),
    ],
)
def test_vits_agree_with_timm(timm, tmp_path, name, options, size):
    weights, x = make(name, size, classes=5, **options), images(size, n=1)
    args = torch_vit.timm_args(weights.model, size)
    assert (size == 224) == ("img_size" not in args)
    theirs = timm.create_model(torch_vit.timm_name(weights.model), num_classes=5, **args)
    theirs.load_state_dict(state(torch_vit.encode(weights, size)), strict=True)
    assert_near(run(theirs, x), logits(weights, x), f"timm {name} {options}")
    np.savez(tmp_path / "vit.npz", **npz_vit.encode(weights, size))
    other = timm.create_model(torch_vit.timm_name(weights.model), num_classes=5, **args)
    other.load_pretrained(str(tmp_path / "vit.npz"))
    np.testing.assert_array_equal(run(other, x), run(theirs, x))


def test_decode_weights_of_timm(timm):
    import torch

    torch.manual_seed(0)
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0)
    arrays = {k: v.numpy() for k, v in theirs.state_dict().items()}
    weights, x = layouts.decode(arrays), images(64)
    assert weights.model["positions"] == "learned"
    assert_near(features(weights, x), run(theirs, x), "timm to ours")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "resnet10"}, "no resnet10, only resnet18"),
        ({"name": "resnet18", "stem": "cifar"}, "no stem 'cifar'"),
        (
            {"name": "resnet50", "width": 2.0, "padding": "same"},
            r"no width 2\.0; no padding 'same'",
        ),
        ({"name": "resnet50", "sk_ratio": 0.0625}, r"no sk_ratio 0\.0625"),
    ],
)
def test_networks_missing_in_timm_and_torchvision_are_refused(model, message):
    for name in (torch_resnet.timm_name, torch_resnet.torchvision_name):
        with pytest.raises(Fault, match=f"{message}.*--format=torch"):
            name(model)


def test_networks_missing_in_torchvision_only():
    assert torch_resnet.timm_name({"name": "resnet200"}) == "resnet200"
    with pytest.raises(Fault, match="torchvision has no resnet200"):
        torch_resnet.torchvision_name({"name": "resnet200"})
    with pytest.raises(Fault, match="torchvision has no vit_small"):
        torch_vit.torchvision_name({"name": "vit_small"})
