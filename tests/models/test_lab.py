"""Lab conversion against scikit-image, and the channels that an encoder sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import color

from ssl_jax.models import lab

RNG = np.random.default_rng(0)
# Random colours, the corners of the cube, greys, and both sides of the knee of sRGB.
COLOURS = np.concatenate(
    [
        RNG.random((500, 3)),
        np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), -1).reshape(-1, 3),
        np.linspace(0, 1, 50)[:, None].repeat(3, 1),
        np.array([[0.04045], [0.0404], [0.0405]]).repeat(3, 1),
    ]
)


def test_lab_equals_scikit_image():
    expected = color.rgb2lab(COLOURS[None])[0]
    with jax.enable_x64(True):
        np.testing.assert_allclose(lab.to_lab(jnp.asarray(COLOURS)), expected, atol=1e-10)
    single = lab.to_lab(jnp.asarray(COLOURS, jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, atol=2e-4)


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")  # some values are no colours
def test_rgb_equals_scikit_image_inside_and_outside_the_gamut():
    values = RNG.uniform((0, -110, -110), (100, 110, 110), (1000, 3))
    expected = color.lab2rgb(values[None])[0]
    with jax.enable_x64(True):
        np.testing.assert_allclose(lab.to_rgb(jnp.asarray(values)), expected, atol=1e-10)


def test_rgb_inverts_lab():
    images = jnp.asarray(COLOURS, jnp.float32)
    np.testing.assert_allclose(lab.to_rgb(lab.to_lab(images)), images, atol=1e-5)


def test_bfloat16_images_are_converted_in_float32():
    images = jnp.asarray(COLOURS, jnp.bfloat16)
    np.testing.assert_array_equal(lab.to_lab(images), lab.to_lab(images.astype(jnp.float32)))


def test_derivatives_are_finite_also_slightly_outside_the_range_of_images():
    pixels = jnp.asarray([[0.0, 0, 0], [1, 1, 1], [-0.3, 1.4, 0.5], [0.04045, 0, 1]])
    assert np.isfinite(jax.jacobian(lab.to_lab)(pixels)).all()


def test_encoders_see_scaled_lightness_or_lab():
    images = jnp.asarray(COLOURS[:8].reshape(2, 2, 2, 3), jnp.float32)
    expected = (color.rgb2lab(np.asarray(images)) - [50, 0, 0]) / [100, 110, 110]
    np.testing.assert_allclose(lab.seen_channels(images, "lab"), expected, atol=1e-5)
    np.testing.assert_allclose(lab.seen_channels(images, "lightness"), expected[..., :1], atol=1e-5)
    assert lab.seen_channels(images, "rgb") is images
    back = lab.from_seen(lab.seen_channels(images, "lab"))
    np.testing.assert_allclose(back, lab.to_lab(images), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_images_than_rgb_are_refused(channels):
    with pytest.raises(ValueError, match=f"have {channels} channel.*data.channels to 3"):
        lab.seen_channels(jnp.zeros((1, 2, 2, channels)), "lightness")


def test_unknown_colors_list_the_choices():
    with pytest.raises(ValueError, match="rgb, lightness, lab; got 'luv'"):
        lab.seen_channels(jnp.zeros((1, 2, 2, 3)), "luv")
