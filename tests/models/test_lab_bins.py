"""Bins of colour against the authors' file and an independent computation of the gamut."""

import numpy as np
from scipy.spatial import ConvexHull, Delaunay
from skimage import color

from ssl_jax.models import lab_bins

# pts_in_hull.npy of richzhang/colorization: for each a, the smallest and the largest b.
AUTHORS = {
    -90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100), -40: (-40, 100),
    -30: (-50, 100), -20: (-50, 100), -10: (-60, 100), 0: (-70, 100), 10: (-80, 90),
    20: (-80, 90), 30: (-90, 90), 40: (-100, 90), 50: (-100, 80), 60: (-110, 80), 70: (-110, 80),
    80: (-110, 70), 90: (-110, 70), 100: (-90, 0),
}  # fmt: skip


def test_the_bins_are_the_authors_313():
    expected = [(a, b) for a, (low, high) in AUTHORS.items() for b in range(low, high + 1, 10)]
    assert len(expected) == 313
    np.testing.assert_array_equal(lab_bins.colour_bins(), expected)


def test_the_bins_are_the_corners_of_the_squares_that_the_hull_of_the_gamut_enters():
    level = np.linspace(0, 1, 52)
    colours = np.stack(np.meshgrid(level, level, level), -1).reshape(1, -1, 3)
    ab = color.rgb2lab(colours)[0, :, 1:]
    hull = ab[ConvexHull(ab).vertices]
    # Points of the hull: a fine grid inside, and the corners.
    axis = np.arange(-110, 110, 0.25)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    inside = np.concatenate([grid[Delaunay(hull).find_simplex(grid) >= 0], hull])
    squares = np.unique(np.floor(inside / 10).astype(int), axis=0)
    corners = squares[:, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])[None]
    expected = np.unique(10 * corners.reshape(-1, 2), axis=0)
    np.testing.assert_array_equal(lab_bins.colour_bins(), expected)


def test_every_colour_is_near_a_bin():
    colours = np.random.default_rng(0).random((1, 5000, 3))
    ab = color.rgb2lab(colours)[0, :, 1:]
    distance = np.abs(ab[:, None] - lab_bins.colour_bins()[None]).max(-1).min(1)
    assert distance.max() <= 5


def test_lightness_has_a_bin_for_every_unit():
    np.testing.assert_array_equal(lab_bins.lightness_bins()[[0, 1, 99], 0], [0.5, 1.5, 99.5])
    assert lab_bins.lightness_bins().shape == (100, 1)
