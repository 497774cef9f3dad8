"""Head that predicts something at every place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.map_head import MapHead, interpolate
from ssl_jax.models.resnet import BasicBlock, ResNet

RNG = np.random.default_rng(0)
MAP = jnp.asarray(RNG.normal(size=(3, 4, 4, 5)), jnp.float32)


def apply(side, maps=MAP, dtype=jnp.float32, stride=1, grid=(0.0, 1)):
    head = MapHead(side, outputs=2, hidden=6, stride=stride, grid=grid, dtype=dtype)
    variables = head.init(jax.random.key(0), maps, False)
    return np.asarray(head.apply(variables, maps, False))


def read(maps, at):
    """Interpolates rows, then columns, by NumPy."""
    for axis in (1, 2):
        cells = np.arange(maps.shape[axis])
        maps = np.apply_along_axis(lambda x, cells=cells: np.interp(at, cells, x), axis, maps)
    return maps


@pytest.mark.parametrize("side", [1, 2, 4, 11])
def test_the_prediction_has_the_side_that_was_asked_for(side):
    assert apply(side).shape == (3, side, side, 2)


@pytest.mark.parametrize(
    ("cells", "side", "stride", "grid"),
    [
        (4, 13, 1, (0.0, 4)),  # enlarges
        (6, 44, 4, (0.0, 32)),  # 176 pixels: the last pixels are beyond the centre of the last cell
        (9, 3, 16, (0.0, 8)),  # reads single cells
        (7, 16, 4, (7.5, 8)),  # patches of 16 pixels, 8 pixels apart
    ],
)
def test_predictions_are_read_from_the_map_at_their_pixels(cells, side, stride, grid):
    maps = jnp.asarray(RNG.normal(size=(2, cells, cells, 5)), jnp.float32)
    small = apply(cells, maps)  # the predictions at the cells themselves
    first, step = grid
    pixels = stride * np.arange(side)
    expected = read(small, np.interp(pixels, first + step * np.arange(cells), np.arange(cells)))
    np.testing.assert_allclose(apply(side, maps, jnp.float32, stride, grid), expected, atol=1e-5)


def test_interpolation_keeps_cells_and_rows_and_columns_apart():
    maps = jnp.asarray(RNG.normal(size=(2, 3, 5, 2)), jnp.float32)
    at = np.array([-1.0, 0.0, 0.25, 1.0, 1.5, 2.0, 7.0])
    np.testing.assert_allclose(interpolate(maps, at), read(np.asarray(maps), at), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "size", "tolerance"),
    [
        # Max pooling reads the bright side of the ramp: one row of the stem, 2 pixels, further.
        ({"stage_sizes": (1, 1, 1, 1), "stem": "imagenet"}, 272, 2.1),
        ({"stage_sizes": (1, 1, 1, 1), "stem": "cifar"}, 76, 0.1),
        ({"stage_sizes": (1,), "stem": "cifar", "patch": 16, "patch_stride": 8}, 64, 0.1),
    ],
    ids=["imagenet", "cifar", "patches"],
)
def test_cells_of_a_resnet_see_the_pixels_of_its_grid(options, size, tolerance):
    encoder = ResNet(BasicBlock, width=1 / 64, norm="none", pool="none", **options)
    ramp = jnp.broadcast_to(jnp.arange(size, dtype=jnp.float32)[:, None, None], (1, size, size, 1))
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), ramp, False))
    # Weighted sums, without bias: the ramp gives the mean row of what a cell sees.
    weights = jax.tree.map_with_path(
        lambda path, x: jnp.full(x.shape, 0.0 if path[-1].key == "bias" else 0.2), shapes
    )
    rows, ones = (encoder.apply(weights, x, False)[0, :, :, 0] for x in (ramp, jnp.ones_like(ramp)))
    middle = len(rows) // 2  # far from the edges
    first, step = encoder.grid
    centre = rows[middle, middle] / ones[middle, middle]
    np.testing.assert_allclose(centre, first + step * middle, atol=tolerance)


def test_predictions_of_bfloat16_activations_are_float32():
    assert apply(4, dtype=jnp.bfloat16).dtype == jnp.float32
