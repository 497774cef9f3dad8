"""Tests decoding of BYOL trees against a forward pass in NumPy float64.

The tests write out the names that Haiku creates.
"""

import numpy as np
import pytest
from random_weights import features, images, relative

from ssl_jax.errors import Fault
from ssl_jax.weights import layouts

TOLERANCE = 1e-5  # of the largest output
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Trees:
    """Parameters and state of a network, drawn while it is built."""

    def __init__(self, root):
        self.root, self.params, self.state = root, {}, {}
        self.rng = np.random.default_rng(0)

    def conv(self, name, kernel, inputs, outputs):
        w = self.rng.normal(
            0, (kernel * kernel * inputs) ** -0.5, (kernel, kernel, inputs, outputs)
        )
        self.params[f"{self.root}/~/{name}"] = {"w": w.astype(np.float32)}

    def norm(self, name, channels):
        shape = (1, 1, 1, channels)
        draw = lambda low: self.rng.uniform(low, low + 1, shape).astype(np.float32)  # noqa: E731
        self.params[f"{self.root}/~/{name}"] = {"scale": draw(0.5), "offset": draw(-0.5)}
        for kind, low in (("mean", -0.5), ("var", 0.5)):
            average = draw(low)
            self.state[f"{self.root}/~/{name}/~/{kind}_ema"] = {
                "average": average,
                "hidden": average * 0.9,
                "counter": np.array(7, np.int32),
            }

    def build(self, stages, channels):
        self.conv("initial_conv", 7, 3, channels)
        self.norm("initial_batchnorm", channels)
        before = channels
        for i, size in enumerate(stages):
            inner, outer = channels * 2**i, 4 * channels * 2**i
            for j in range(size):
                block = f"block_group_{i}/~/block_{j}/~/"
                if j == 0:
                    self.conv(f"{block}shortcut_conv", 1, before, outer)
                    self.norm(f"{block}shortcut_batchnorm", outer)
                shapes = [(1, before, inner), (3, inner, inner), (1, inner, outer)]
                for k, shape in enumerate(shapes):
                    self.conv(f"{block}conv_{k}", *shape)
                    self.norm(f"{block}batchnorm_{k}", shape[2])
                before = outer
        self.params["classifier"] = {
            "w": self.rng.normal(size=(before, 5)).astype(np.float32),
            "b": self.rng.normal(size=5).astype(np.float32),
        }
        self.params["projector/linear"] = {"w": np.zeros((before, 4)), "b": np.zeros(4)}
        return self


def windows(x, kernel, stride, fill):
    """Returns the windows of a convolution with SAME padding, [n, h', w', kernel, kernel, c]."""
    pads = []
    for side in x.shape[1:3]:
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))
    return view[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)


class Forward:
    """BYOL's ResNet in NumPy."""

    def __init__(self, trees):
        self.trees = trees

    def conv(self, x, name, stride=1):
        w = self.trees.params[f"{self.trees.root}/~/{name}"]["w"].astype(np.float64)
        view = windows(x, len(w), stride, 0.0)
        return view.reshape(*view.shape[:3], -1) @ w.reshape(-1, w.shape[-1])

    def norm(self, x, name):
        path = f"{self.trees.root}/~/{name}"
        mean, var = (self.trees.state[f"{path}/~/{k}_ema"]["average"] for k in ("mean", "var"))
        scale, offset = (self.trees.params[path][k] for k in ("scale", "offset"))
        return (x - mean) / np.sqrt(var.astype(np.float64) + 1e-5) * scale + offset

    def __call__(self, x, stages):
        x = (x.astype(np.float64) - np.array(MEAN)) / np.array(STD)
        x = np.maximum(self.norm(self.conv(x, "initial_conv", 2), "initial_batchnorm"), 0)
        x = windows(x, 3, 2, -np.inf).max((3, 4))
        for i, size in enumerate(stages):
            for j in range(size):
                block, stride, y = f"block_group_{i}/~/block_{j}/~/", 2 if i and not j else 1, x
                for k in range(3):
                    y = self.conv(y, f"{block}conv_{k}", stride if k == 1 else 1)
                    y = self.norm(y, f"{block}batchnorm_{k}")
                    y = np.maximum(y, 0) if k < 2 else y
                if j == 0:
                    x = self.conv(x, f"{block}shortcut_conv", stride)
                    x = self.norm(x, f"{block}shortcut_batchnorm")
                x = np.maximum(x + y, 0)
        return x.mean((1, 2))


@pytest.fixture(scope="module")
def trees():
    return Trees("res_net50").build((3, 4, 6, 3), 8)


@pytest.mark.parametrize("size", [64, 75])
def test_features_equal_those_of_byol(trees, size):
    weights = layouts.decode({"params": trees.params, "state": trees.state})
    expected = {"name": "resnet50", "width": 0.125, "padding": "same", "mean": MEAN, "std": STD}
    assert expected.items() <= weights.model.items()
    x = images(size)
    error = relative(features(weights, x), Forward(trees)(x, (3, 4, 6, 3)))
    print(f"BYOL at {size}: {error:.1e}")
    assert error < TOLERANCE
    layer = weights.others["classifier"]["params"]["dense"]
    np.testing.assert_array_equal(layer["kernel"], trees.params["classifier"]["w"])


def flatten(tree, prefix):
    return {f"{prefix}//{m}//{n}": a for m, leaves in tree.items() for n, a in leaves.items()}


def test_decode_selects_the_online_network(trees):
    target, other = (
        {m: {n: a + 1 for n, a in leaves.items()} for m, leaves in tree.items()}
        for tree in (trees.params, trees.state)
    )
    # Readers flatten the named tuple in the released pickles by field names or by numbers.
    by_name = {"target_params": target, "online_params": trees.params}
    by_name |= {"target_state": other, "online_state": trees.state}
    by_number = {"0": trees.params, "1": target, "2": trees.state, "3": other}
    for parts in (by_name, by_number):
        flat = {}
        for name, tree in parts.items():
            flat |= flatten(tree, f"experiment_state//{name}")
        weights = layouts.decode(flat)
        kernel = trees.params["res_net50/~/initial_conv"]["w"]
        np.testing.assert_array_equal(weights.params["conv1"]["kernel"], kernel)
        mean = trees.state["res_net50/~/initial_batchnorm/~/mean_ema"]["average"]
        np.testing.assert_array_equal(weights.batch_stats["bn1"]["mean"], mean.reshape(-1))
        assert list(weights.others) == ["classifier"]


def test_resnet_version_2_is_refused(trees):
    params = {n.replace("initial_batch", "final_batch"): p for n, p in trees.params.items()}
    with pytest.raises(Fault, match="ResNet version 2"):
        layouts.decode({"params": params, "state": trees.state})
