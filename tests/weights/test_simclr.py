"""Tests SimCLR checkpoints against a reimplementation of SimCLR's network in TensorFlow float64.

The reimplementation builds layers in the order of google-research/simclr. It counts the numbers in
the names of variables itself, independently of the code under test.
"""

import itertools

import numpy as np
import pytest
from random_weights import assert_same, features, images, make, relative

from ssl_jax.errors import Fault
from ssl_jax.models.heads import ProjectionHead
from ssl_jax.weights import layouts, simclr

TOLERANCE = 1e-5  # of the largest output
STAGES = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


class Network:
    """A forward pass in TensorFlow float64 that finds variables by counting layers."""

    def __init__(self, arrays):
        self.arrays, self.used = arrays, set()
        self.counts = {kind: itertools.count() for kind in ("conv2d", "batch_normalization")}

    def take(self, kind, *leaves):
        number = next(self.counts[kind])
        module = f"base_model/{kind}" + (f"_{number}" if number else "")
        names = [f"{module}/{leaf}" for leaf in leaves]
        self.used |= set(names)
        return [self.arrays[name].astype(np.float64) for name in names]

    def conv(self, x, stride=1):
        import tensorflow as tf

        (kernel,) = self.take("conv2d", "kernel")
        total = len(kernel) - 1
        if stride > 1:
            pads = (total // 2, total - total // 2)
            x = tf.pad(x, [(0, 0), pads, pads, (0, 0)])
        return tf.nn.conv2d(x, kernel, stride, "SAME" if stride == 1 else "VALID")

    def norm(self, x, relu=True):
        import tensorflow as tf

        gamma, beta, mean, variance = self.take(
            "batch_normalization", "gamma", "beta", "moving_mean", "moving_variance"
        )
        x = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
        return tf.nn.relu(x) if relu else x

    def selective(self, x, stride):
        import tensorflow as tf

        streams = tf.stack(tf.split(self.norm(self.conv(x, stride)), 2, axis=3))
        gate = tf.reduce_mean(tf.reduce_sum(streams, 0), [1, 2], keepdims=True)
        gate = self.conv(self.norm(self.conv(gate)))
        weights = tf.nn.softmax(tf.stack(tf.split(gate, 2, axis=3)), axis=0)
        return tf.reduce_sum(streams * weights, 0)

    def shortcut(self, x, stride, sk):
        import tensorflow as tf

        if sk:
            if stride > 1:
                x = tf.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])
            x = tf.nn.avg_pool2d(x, 2, stride, "SAME" if stride == 1 else "VALID")
            stride = 1
        return self.norm(self.conv(x, stride), relu=False)

    def block(self, x, stride, projects, bottleneck, sk):
        import tensorflow as tf

        short = self.shortcut(x, stride, sk) if projects else x
        if not bottleneck:
            x = self.norm(self.conv(x, stride))
            return tf.nn.relu(self.norm(self.conv(x), relu=False) + short)
        x = self.norm(self.conv(x))
        x = self.selective(x, stride) if sk else self.norm(self.conv(x, stride))
        return tf.nn.relu(self.norm(self.conv(x), relu=False) + short)

    def __call__(self, x, name, sk=False, cifar=False):
        import tensorflow as tf

        x = x.astype(np.float64)
        if sk and not cifar:
            x = self.norm(self.conv(x, 2))
            x = self.conv(self.norm(self.conv(x)))
        else:
            x = self.conv(x, 1 if cifar else 2)
        x = self.norm(x)
        x = x if cifar else tf.nn.max_pool2d(x, 3, 2, "SAME")
        bottleneck = name == "resnet50"
        for i, size in enumerate(STAGES[name]):
            for j in range(size):
                # This project has no projection in the first block of a basic ResNet.
                projects = j == 0 and (i > 0 or bottleneck)
                x = self.block(x, 2 if i and not j else 1, projects, bottleneck, sk)
        return tf.reduce_mean(x, [1, 2]).numpy()


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("resnet10", {"width": 0.5}, 64),
        ("resnet18", {"width": 0.25, "stem": "cifar"}, 33),
        ("resnet50", {"width": 0.25}, 75),
        ("resnet50", {"width": 0.5, "sk_ratio": 0.25}, 72),
    ],
)
def test_features_equal_those_of_simclr(name, options, size):
    weights, x = make(name, padding="simclr", **options), images(size)
    arrays = simclr.encode(weights)
    network = Network(arrays)
    expected = network(x, name, "sk_ratio" in options, options.get("stem") == "cifar")
    assert network.used == set(arrays)
    error = relative(features(layouts.decode(arrays), x), expected)
    print(f"{name} {options} at {size}: {error:.1e}")
    assert error < TOLERANCE


def test_decode_reads_heads_and_leaves_out_optimizer_slots():
    weights = make("resnet10", width=0.25, padding="simclr", classes=3, head=ProjectionHead(2))
    arrays = simclr.encode(weights)
    assert {name for name in arrays if name.startswith("head")} == {
        *(f"head_contrastive/nl_{i}/dense/kernel" for i in (0, 1)),
        *(f"head_contrastive/nl_{i}/batch_normalization/gamma" for i in (0, 1)),
        *(f"head_contrastive/nl_{i}/batch_normalization/moving_mean" for i in (0, 1)),
        *(f"head_contrastive/nl_{i}/batch_normalization/moving_variance" for i in (0, 1)),
        "head_contrastive/nl_0/batch_normalization/beta",
        *(f"head_supervised/linear_layer/dense/{leaf}" for leaf in ("kernel", "bias")),
    }
    slots = {f"{name}/Momentum": a for name, a in arrays.items()} | {"global_step": np.array(9)}
    assert_same(layouts.decode(arrays | slots), weights)


def test_classifier_inside_a_head_is_left_out():
    weights = make("resnet10", width=0.25, padding="simclr", classes=3, head=ProjectionHead(3))
    assert list(layouts.decode(simclr.encode(weights)).others) == ["head"]


def test_resnet_18_with_projection_in_first_block_is_refused():
    arrays = simclr.encode(make("resnet18", width=0.25, padding="simclr"))
    arrays["base_model/conv2d_20/kernel"] = np.zeros((1, 1, 16, 16))
    with pytest.raises(Fault, match="21 convolutions fit none of resnet8"):
        layouts.decode(arrays)
