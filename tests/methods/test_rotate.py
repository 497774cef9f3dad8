"""Rotations: exact turns, angles of any size, and no trace of the angle but in the content."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from ssl_jax.methods import _rotate
from ssl_jax.methods._rotate import circle, quarter_turns, rotate, take_turn


def blobs(h, angle=0.0, centres=((3, 1), (-2, 3), (-1, -3), (2, -2)), sigma=1.5, h_blur=0.0):
    """Draws Gaussian blobs [h, h, 4], turned counter-clockwise by an angle, from their formula."""
    place = np.arange(h) - (h - 1) / 2
    x, y = place[None, :], -place[:, None]
    c, s = np.cos(angle), np.sin(angle)
    wide = sigma**2 + h_blur**2
    images = [
        sigma**2 / wide * np.exp(-((x - c * u + s * v) ** 2 + (y - s * u - c * v) ** 2) / 2 / wide)
        for u, v in centres
    ]
    return np.stack(images, axis=-1)


def radius(h):
    place = np.arange(h) - (h - 1) / 2
    return np.hypot(place[:, None], place)


def test_quarter_turns_are_those_of_numpy():
    images = np.random.default_rng(0).random((3, 6, 6, 2)).astype(np.float32)
    want = np.stack([np.rot90(images, k, axes=(1, 2)) for k in range(4)], axis=1)
    np.testing.assert_array_equal(quarter_turns(jnp.asarray(images)), want)
    turns = jnp.array([1, -1, 6])
    want = [np.rot90(x, k) for x, k in zip(images, (1, 3, 2), strict=True)]
    np.testing.assert_array_equal(take_turn(jnp.asarray(images), turns), want)


@pytest.mark.parametrize("degrees", [-45, -20, 0, 7, 33, 45])
@pytest.mark.parametrize("h", [24, 25])
def test_rotation_moves_a_smooth_image_exactly(degrees, h):
    angle = np.deg2rad(degrees)
    got = jax.jit(rotate)(jnp.asarray(blobs(h), jnp.float32), jnp.float32(angle))
    want = blobs(h, angle, h_blur=_rotate.BLUR)
    # The blobs end before the blurred edge of the circle.
    inside = radius(h) < h / 2 - 4
    np.testing.assert_allclose(got[inside], want[inside], atol=1 / 255)  # one grey level


@pytest.mark.parametrize("degrees", [0, 30, 45])
def test_pixels_outside_the_circle_are_constant(degrees):
    image = np.random.default_rng(1).random((20, 20, 3)).astype(np.float32)
    turned = np.asarray(rotate(jnp.asarray(image), jnp.float32(np.deg2rad(degrees))))
    outside = radius(20) > 10
    assert (turned[outside] == _rotate.GREY).all()
    assert outside.mean() > 0.2


def statistics(turned):
    """Contrast, and contrast of differences between neighbours, inside a circle: [n, 3]."""
    inside = circle(turned.shape[1] - 6)
    turned = turned[:, 2:-2, 2:-2]
    centred = turned - 0.5
    across = centred[:, 1:-1, 1:-1] - centred[:, 1:-1, :-2]
    down = centred[:, 1:-1, 1:-1] - centred[:, :-2, 1:-1]
    parts = [np.square(x[:, inside]).mean((1, 2)) for x in (centred[:, 1:-1, 1:-1], across, down)]
    return np.stack(parts, axis=1)


def test_interpolation_does_not_show_the_angle():
    """Turned noise has the same contrast at all angles; bilinear interpolation loses half."""
    noise = np.random.default_rng(2).random((400, 24, 24, 3)).astype(np.float32)
    turn = jax.jit(jax.vmap(rotate, (0, None)))
    rows = {}
    for degrees in (0, 15, 45):
        turned = np.asarray(turn(jnp.asarray(noise), jnp.float32(np.deg2rad(degrees))))
        rows[degrees] = statistics(turned).mean(0)
    for degrees in (15, 45):
        np.testing.assert_allclose(rows[degrees], rows[0], rtol=0.03)
    plain = {
        degrees: statistics(
            scipy.ndimage.rotate(noise[:50], degrees, axes=(1, 2), reshape=False, order=1)
        ).mean(0)
        for degrees in (0, 45)
    }
    assert (plain[45] < 0.6 * plain[0]).all()


def test_two_rotations_cancel():
    image = jnp.asarray(blobs(32, sigma=2.0), jnp.float32)
    back = rotate(rotate(image, jnp.float32(0.6)), jnp.float32(-0.6))
    inner = radius(32) < 11
    want = blobs(32, sigma=2.0, h_blur=_rotate.BLUR * np.sqrt(2))
    np.testing.assert_allclose(back[inner], want[inner], atol=0.01)
