"""Encoder of two ResNets that see different channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.models.lab import seen_channels
from ssl_jax.models.resnet import BasicBlock, ResNet
from ssl_jax.models.split import SplitResNet

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.random((2, 8, 8, 3)), jnp.float32)
DEPTH = jnp.asarray(RNG.random((2, 8, 8, 4)), jnp.float32)
SMALL = {"block": BasicBlock, "stage_sizes": (1,), "stem": "cifar"}


def init(encoder, images):
    return encoder.init(jax.random.key(0), images, False)


def test_features_are_those_of_two_networks_of_half_the_width():
    encoder = SplitResNet(**SMALL, width=0.25, colors="lab")
    variables = init(encoder, IMAGES)
    seen = seen_channels(IMAGES, "lab")
    half = ResNet(**SMALL, width=0.125)
    expected = [
        half.apply({k: tree[name] for k, tree in variables.items()}, seen[..., channels], False)
        for name, channels in (("first", slice(0, 1)), ("second", slice(1, 3)))
    ]
    got = encoder.apply(variables, IMAGES, False)
    np.testing.assert_allclose(got, jnp.concatenate(expected, -1), rtol=1e-6)
    maps = encoder.clone(pool="none").apply(variables, IMAGES, False)
    assert maps.shape == (2, 8, 8, 16)
    np.testing.assert_allclose(maps.mean((1, 2)), got, rtol=1e-5)


def test_groups_take_any_channels_after_standardisation():
    options = {"mean": (0.1, 0.2, 0.3, 0.4), "std": (0.5, 0.6, 0.7, 0.8)}
    encoder = SplitResNet(**SMALL, width=0.25, first=(3, 0), second=(1, 2), **options)
    variables = init(encoder, DEPTH)
    got = encoder.apply(variables, DEPTH, False)
    changed = DEPTH.at[..., 1].set(0.9)
    features = encoder.apply(variables, changed, False)
    np.testing.assert_array_equal(got[:, :8], features[:, :8])
    assert np.abs(got[:, 8:] - features[:, 8:]).max() > 1e-3
    half = ResNet(**SMALL, width=0.125)
    seen = (np.asarray(DEPTH) - options["mean"]) / options["std"]
    tree = {k: tree["first"] for k, tree in variables.items()}
    expected = half.apply(tree, jnp.asarray(seen[..., [3, 0]], jnp.float32), False)
    np.testing.assert_allclose(got[:, :8], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("first", "second"),
    [((0,), (1,)), ((0, 1), (1, 2)), ((0, 1, 2), ()), ((0,), (1, 3)), ((0, 0), (1, 2))],
)
def test_groups_that_do_not_divide_the_channels_are_refused(first, second):
    encoder = SplitResNet(**SMALL, first=first, second=second)
    with pytest.raises(ValueError, match="each of the 3 channels 0 to 2 must be in exactly one"):
        init(encoder, IMAGES)


@pytest.mark.parametrize("options", [{"mean": (0.5,) * 3}, {"std": (0.25,) * 3}], ids=str)
@pytest.mark.parametrize(
    ("family", "colors"), [(ResNet, "lightness"), (ResNet, "lab"), (SplitResNet, "lab")]
)
def test_converted_channels_are_not_standardised_again(family, colors, options):
    encoder = family(**SMALL, width=0.25, colors=colors, **options)
    with pytest.raises(ValueError, match=rf"colors='{colors}' centres.* set model\.mean to"):
        init(encoder, IMAGES)


def test_a_split_encoder_is_made_by_name():
    encoder = models.get("split_resnet10", width=0.25, first=(0,), second=(1, 2), colors="lab")
    assert isinstance(encoder, SplitResNet)
    assert encoder.stage_sizes == (1, 1, 1, 1)


def test_a_resnet_that_sees_the_lightness_ignores_colours():
    encoder = ResNet(**SMALL, width=0.125, colors="lightness")
    variables = init(encoder, IMAGES)
    assert variables["params"]["conv1"]["kernel"].shape[2] == 1
    plain = ResNet(**SMALL, width=0.125)
    expected = plain.apply(variables, seen_channels(IMAGES, "lightness"), False)
    np.testing.assert_array_equal(encoder.apply(variables, IMAGES, False), expected)
