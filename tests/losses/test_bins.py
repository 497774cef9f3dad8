"""Bins, soft targets, weights of rare bins and annealed mean against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses import bins

RNG = np.random.default_rng(0)
GRID = np.stack(np.meshgrid([-20, -10, 0, 10, 20], [-10, 0, 10]), -1).reshape(-1, 2).astype(float)


def test_soft_targets_equal_a_loop_over_the_sorted_distances():
    values = RNG.uniform(-30, 30, (2, 3, 4, 2))
    with jax.enable_x64(True):
        distances = bins.squared_distances(jnp.asarray(values), GRID)
        got = np.asarray(bins.soft_targets(distances, neighbours=5, sigma=5.0))
    for place in np.ndindex(2, 3, 4):
        distance = np.linalg.norm(values[place] - GRID, axis=1)
        nearest = np.argsort(distance)[:5]
        expected = np.zeros(len(GRID))
        expected[nearest] = np.exp(-(distance[nearest] ** 2) / (2 * 5.0**2))
        np.testing.assert_allclose(got[place], expected / expected.sum(), atol=1e-12)


def test_one_neighbour_gives_the_nearest_bin_also_far_away():
    values = jnp.asarray([[3.0, 4.0], [900.0, 0.0]])
    distances = bins.squared_distances(values, GRID)
    got = bins.soft_targets(distances, neighbours=1, sigma=5.0)
    np.testing.assert_array_equal(GRID[got.argmax(1)], [[0, 0], [20, 0]])
    np.testing.assert_array_equal(got.max(1), 1)


def test_of_equally_near_bins_the_first_are_taken():
    distances = bins.squared_distances(jnp.asarray([[0.0, 0.0]]), GRID)
    got = np.asarray(bins.soft_targets(distances, neighbours=3, sigma=5.0))[0]
    neighbours = [i for i, centre in enumerate(GRID) if np.abs(centre).sum() == 10]
    assert len(neighbours) == 4
    expected = np.zeros(len(GRID))
    expected[neighbours[:2]] = np.exp(-2)
    expected[np.abs(GRID).sum(1) == 0] = 1
    np.testing.assert_allclose(got, expected / expected.sum(), rtol=1e-6)


def test_shares_count_the_places_of_each_example():
    nearest = jnp.asarray([[[0, 2], [2, 2]], [[1, 1], [1, 1]]])
    got = bins.bin_shares(nearest, 4, jnp.float32)
    np.testing.assert_array_equal(got, [[0.25, 0, 0.75, 0], [0, 1, 0, 0]])


def _weights(counts, uniform):
    """Equation 4 of arXiv 1603.08511, with loops."""
    smooth = np.zeros(len(GRID))
    for q, p in enumerate(counts / counts.sum()):
        kernel = np.exp([-((GRID[q] - r) @ (GRID[q] - r)) / (2 * 5.0**2) for r in GRID])
        smooth += p * kernel / kernel.sum()
    weights = 1 / ((1 - uniform) * smooth + uniform / len(GRID))
    return weights / (smooth @ weights), smooth


@pytest.mark.parametrize("uniform", [0.1, 0.5, 1.0])
def test_rebalancing_weights_equal_loops_and_are_1_on_average(uniform):
    counts = RNG.random(len(GRID)) * np.array([0] * 5 + [1] * 5 + [30] * 5)
    expected, smooth = _weights(counts, uniform)
    with jax.enable_x64(True):
        got = bins.rebalancing_weights(jnp.asarray(counts), GRID, sigma=5.0, uniform=uniform)
    got = np.asarray(got)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    np.testing.assert_allclose(smooth @ got, 1, rtol=1e-12)
    if uniform == 1:
        np.testing.assert_allclose(got, 1, rtol=1e-12)
    else:
        assert got[0] > got[-1]  # rare before frequent


def test_annealed_mean_is_between_mean_and_mode():
    logits = np.array([[0.0, 1.0, 3.0], [2.0, 2.0, -9.0]])
    centres = np.array([[0.0, 1.0], [10.0, -5.0], [20.0, 7.0]])
    for temperature in (1.0, 0.38):
        p = np.exp(logits) ** (1 / temperature)
        got = bins.annealed_mean(jnp.asarray(logits), centres, temperature=temperature)
        np.testing.assert_allclose(got, p / p.sum(1, keepdims=True) @ centres, rtol=1e-5)
    cold = bins.annealed_mean(jnp.asarray(logits), centres, temperature=1e-3)
    np.testing.assert_allclose(cold, [[20, 7], [5, -2]], rtol=1e-5)
