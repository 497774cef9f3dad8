"""Grids of patches, and ResNets that encode every patch by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.models import layers
from ssl_jax.models.norm import LayerNorm
from ssl_jax.models.patches import cut, grid_side
from ssl_jax.models.resnet import BasicBlock, ResNet

IMAGES = np.random.default_rng(0).uniform(size=(3, 11, 13, 3)).astype(np.float32)
SMALL = {"width": 0.125, "stem": "cifar", "zero_gamma": False}


def encoder(**options):
    return ResNet(BasicBlock, (1, 1), **SMALL | {"norm": "layer"} | options)


def loop(images, patch, stride):
    """Patches [n, rows, columns, patch, patch, c], cut one by one."""
    rows = range(0, images.shape[1] - patch + 1, stride)
    columns = range(0, images.shape[2] - patch + 1, stride)
    return np.stack(
        [
            np.stack([images[:, i : i + patch, j : j + patch] for j in columns], axis=1)
            for i in rows
        ],
        axis=1,
    )


@pytest.mark.parametrize(("patch", "stride"), [(4, 4), (5, 2), (11, 1)])
def test_cut_equals_patches_cut_one_by_one(patch, stride):
    wanted = loop(IMAGES, patch, stride)
    np.testing.assert_array_equal(cut(jnp.asarray(IMAGES), patch, stride), wanted)
    assert wanted.shape[1] == grid_side(11, patch, stride)


@pytest.mark.parametrize(
    ("side", "patch", "stride", "grid"), [(256, 64, 32, 7), (260, 80, 36, 6), (24, 8, 4, 5)]
)
def test_grids_of_the_papers(side, patch, stride, grid):
    assert grid_side(side, patch, stride) == grid


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_features_are_the_mean_over_patches_encoded_alone(norm):
    whole, grid = encoder(norm=norm), encoder(norm=norm, patch=5, patch_stride=3)
    variables = whole.init(jax.random.key(0), jnp.asarray(IMAGES[:, :5, :5]), False)
    patches = loop(IMAGES, 5, 3)
    wanted = np.stack(
        [
            [whole.apply(variables, patches[:, i, j], False) for j in range(patches.shape[2])]
            for i in range(patches.shape[1])
        ]
    ).transpose(2, 0, 1, 3)
    by_patch = grid.clone(pool="none").apply(variables, IMAGES, True)
    np.testing.assert_allclose(by_patch, wanted, rtol=1e-5, atol=1e-6)
    features = grid.apply(variables, IMAGES, False)
    np.testing.assert_allclose(features, wanted.mean((1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_a_patch_depends_on_its_own_pixels_only(norm):
    module = encoder(norm=norm, patch=5, patch_stride=3, pool="none")
    variables = module.init(jax.random.key(0), jnp.asarray(IMAGES), True)
    apply = jax.jit(lambda x: module.apply(variables, x, True))
    moved = IMAGES.copy()
    moved[:, 8:] += 1  # only the last of three rows of patches has these pixels
    before, after = np.asarray(apply(IMAGES)), np.asarray(apply(moved))
    np.testing.assert_array_equal(after[:, :2], before[:, :2])
    assert np.all(np.any(after[:, 2] != before[:, 2], axis=-1))


def test_layer_norm_equals_its_formula():
    x = np.random.default_rng(1).normal(size=(4, 3, 5, 6)) * 3 + 1
    scale, bias = np.linspace(0.5, 2, 6), np.linspace(-1, 1, 6)
    params = {"params": {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}}
    centred = x - x.mean((1, 2, 3), keepdims=True)
    deviation = np.sqrt((centred**2).mean((1, 2, 3), keepdims=True) + 1e-5)
    normal = centred / deviation
    for normalise, wanted in ((True, normal * scale + bias), (False, x * scale + bias)):
        got = LayerNorm(normalise).apply(params, jnp.asarray(x, jnp.float32), True)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_networks_without_batch_norm_have_no_statistics():
    variables = encoder().init(jax.random.key(0), jnp.asarray(IMAGES), True)
    assert variables.keys() == {"params"}


def test_blocks_of_patch_encoders_have_one_output_per_image():
    module = encoder(patch=5, patch_stride=3)
    variables = module.init(jax.random.key(0), jnp.asarray(IMAGES), False)
    outputs = layers.outputs(module, variables, IMAGES)
    assert {name: x.shape for name, x in outputs.items()} == {
        "layer1_0": (3, 8),
        "layer2_0": (3, 16),
        "features": (3, 16),
    }
    np.testing.assert_allclose(outputs["layer2_0"], outputs["features"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "width", "features"), [("resnet101_stage3", 1, 1024), ("resnet161", 2, 2048)]
)
def test_networks_of_the_papers_end_after_three_stages(name, width, features):
    module = models.get(name, width=width, norm="layer", patch=64, patch_stride=32)
    images = jax.ShapeDtypeStruct((2, 96, 96, 3), jnp.float32)
    shape = jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x, False)[0], images
    )
    assert shape.shape == (2, features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "group"}, "norm must be one of batch, layer, none"),
        ({"patch": 5, "patch_stride": 3, "norm": "batch"}, "would mix the patches"),
        ({"patch": 5}, "set model.patch_stride"),
        ({"patch_stride": 5}, "set model.patch_stride"),
        ({"patch": 3, "patch_stride": 4}, "set model.patch_stride"),
        ({"patch": 12, "patch_stride": 4}, "side of 11 pixels are smaller than a patch of 12"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        encoder(**options).init(jax.random.key(0), jnp.asarray(IMAGES), False)
