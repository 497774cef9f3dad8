"""Tiles are cut from their cells, with gaps; guards against shortcuts compute what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ssl_jax.methods import Run, jigsaw
from ssl_jax.methods import _shortcuts as shortcuts
from ssl_jax.methods._tiles import Grid, arrange, make_grid
from ssl_jax.models.dbn import DBN
from ssl_jax.models.vit import ViT

KEY = jax.random.key(7)
RUN = Run(tiny.seen(1, 30), 8, 4, num_examples=4)


def test_tiles_lie_in_their_cells_at_every_offset():
    grid = make_grid(tiny.Encoder(), RUN, 6, 2)
    assert grid == Grid(cell=10, tile=6, jitter=2)
    keys = jax.random.split(KEY, 500)
    corners = np.asarray(jax.vmap(grid.corners)(keys))
    row, column = np.divmod(np.arange(9), 3)
    shift = corners - 10 * np.stack([row, column], axis=1)
    # 10 - 6 - 2 = 2 pixels stay free, one on each side, so that the gap is 2 pixels or more.
    for cell in range(9):
        for axis in range(2):
            assert set(shift[:, cell, axis].tolist()) == {1, 2, 3}
    assert abs(np.corrcoef(shift.reshape(500, -1).T) - np.eye(18)).max() < 0.2


def test_cut_copies_the_pixels():
    image = np.random.default_rng(0).random((30, 30, 3)).astype(np.float32)
    grid = Grid(10, 6, 4)
    corners = np.asarray(grid.corners(KEY))
    tiles = np.asarray(grid.cut(jnp.asarray(image), jnp.asarray(corners)))
    for tile, (top, left) in zip(tiles, corners, strict=True):
        np.testing.assert_array_equal(tile, image[top : top + 6, left : left + 6])


def test_arrange_draws_the_grid_row_by_row():
    tiles = np.random.default_rng(1).random((2, 9, 4, 4, 3)).astype(np.float32)
    drawn = np.asarray(arrange(jnp.asarray(tiles)))
    assert drawn.shape == (2, 18, 18, 3)
    for cell in range(9):
        row, column = divmod(cell, 3)
        place = np.s_[:, 6 * row + 1 : 6 * row + 5, 6 * column + 1 : 6 * column + 5]
        np.testing.assert_array_equal(drawn[place], tiles[:, cell])
    assert (drawn[:, 0] == 1).all()


@pytest.mark.parametrize(("tile", "jitter"), [(9, 2), (0, 2), (8, -1)])
def test_impossible_grids_raise(tile, jitter):
    with pytest.raises(ValueError, match=f"cells of 10 pixels, which must hold a tile of {tile} "):
        make_grid(tiny.Encoder(), RUN, tile, jitter)


def test_other_runs_and_encoders_raise():
    with pytest.raises(ValueError, match=r"set augment\.size to 33 or more"):
        make_grid(tiny.Encoder(), RUN, 9, 2)
    with pytest.raises(ValueError, match=r"set augment\.views to 1"):
        make_grid(tiny.Encoder(), RUN._replace(seen=tiny.seen(2, 30)), 8, 2)
    for encoder in (ViT(patch_size=2, width=8, depth=1, heads=2, positions="learned"), DBN((4,))):
        with pytest.raises(ValueError, match="fit one size only: choose a ResNet, or a ViT with"):
            make_grid(encoder, RUN, 8, 2)
    with pytest.raises(ValueError, match="30 x 30 pixels cannot be cut into patches of 4 x 4"):
        make_grid(ViT(patch_size=4, width=8, depth=1, heads=2), RUN, 8, 2)


def test_normalised_tiles_have_the_statistics_of_an_average_image():
    tiles = np.random.default_rng(2).random((2, 9, 8, 8, 3)) * [0.1, 1, 0.5] + [0, 0, 0.3]
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)
    got = np.asarray(jigsaw.normalise(jnp.asarray(tiles, jnp.float32), mean, std))
    np.testing.assert_allclose(got.mean((2, 3)), np.broadcast_to(mean, (2, 9, 3)), atol=1e-5)
    np.testing.assert_allclose(got.std((2, 3)), np.broadcast_to(std, (2, 9, 3)), rtol=0.02)
    flat = jigsaw.normalise(jnp.full((1, 4, 4, 3), 0.7), mean, std)
    np.testing.assert_allclose(flat, np.broadcast_to(mean, (1, 4, 4, 3)), atol=1e-4)


def test_dropping_colours_keeps_one_channel():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)
    tiles = np.random.default_rng(3).random((300, 16, 16, 3)).astype(np.float32)
    dropped = np.asarray(shortcuts.drop_colours(jnp.asarray(tiles), KEY, mean, std))
    before, after = ((x - np.asarray(mean)) / std for x in (tiles, dropped))
    correlation = [
        [np.corrcoef(a[..., c].ravel(), b[..., c].ravel())[0, 1] for c in range(3)]
        for a, b in zip(before, after, strict=True)
    ]
    kept = np.argmax(correlation, axis=1)
    assert np.bincount(kept, minlength=3).min() > 70  # 100 expected
    every = np.arange(300)
    assert np.asarray(correlation)[every, kept].min() > 0.9999
    others = np.stack([np.delete(x, k, axis=-1) for x, k in zip(after, kept, strict=True)])
    own = after[every, :, :, kept]
    np.testing.assert_allclose(others.std((1, 2)) / own.std((1, 2))[:, None], 0.01, rtol=0.25)
    np.testing.assert_allclose(np.square(after).mean((1, 2, 3)), 1, rtol=1e-3)
    np.testing.assert_allclose(own.mean((1, 2)), 0, atol=1e-4)


def test_projection_removes_green_against_magenta_and_keeps_grey():
    colours = np.random.default_rng(4).random((5, 4, 4, 3)).astype(np.float32)
    got = np.asarray(shortcuts.project_colours(jnp.asarray(colours)), np.float64)
    axis = np.array([-1, 2, -1]) / np.sqrt(6)
    np.testing.assert_allclose(got @ axis, 0, atol=1e-6)
    np.testing.assert_allclose(got, colours - (colours @ axis)[..., None] * axis, atol=1e-6)
    grey = np.full((1, 2, 2, 3), 0.37, np.float32)
    np.testing.assert_allclose(shortcuts.project_colours(jnp.asarray(grey)), grey, atol=1e-6)


@pytest.mark.parametrize("side", [10, 13, 19])
def test_lower_resolution_is_that_of_two_resizes(side):
    tile = np.random.default_rng(5).random((20, 20, 3)).astype(np.float32)
    got = jax.jit(shortcuts.through_side)(jnp.asarray(tile), jnp.int32(side))
    small = jax.image.resize(tile, (side, side, 3), "linear", antialias=True)
    want = jax.image.resize(small, (20, 20, 3), "linear", antialias=True)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_third_of_the_tiles_loses_resolution():
    tiles = jnp.asarray(np.random.default_rng(6).random((600, 16, 16, 1)), jnp.float32)
    lower = shortcuts.lower_resolution(tiles, KEY, 0.33)
    changed = np.asarray((lower != tiles).any((1, 2, 3)))
    assert abs(changed.mean() - 0.33) < 0.06
    np.testing.assert_array_equal(shortcuts.lower_resolution(tiles, KEY, 0.0), tiles)
