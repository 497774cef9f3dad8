"""Each operation of both executors against an independent oracle."""

import colorsys

import jax
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf
from PIL import Image, ImageFilter, ImageOps

from ssl_jax.inputs.image import device, host
from ssl_jax.inputs.image.views import ORDERS, Decisions, View, blur_radius

OFF = View(size=32, flip=0, jitter=0, grayscale=0, blur=0)
apply = jax.jit(device.apply, static_argnums=2)


def crop(size: int = 32) -> np.ndarray:
    """Returns noise with some grey, black, white and fully saturated pixels."""
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    image[:4] = image[:4, :, :1]
    image[4, :8] = [[0, 0, 0], [255] * 3, [255, 0, 0], [0, 255, 0], [0, 0, 255]] + [
        [255, 255, 0]
    ] * 3
    return image


def run(executor: str, view: View, image: np.ndarray, **decisions) -> np.ndarray:
    row = Decisions(**decisions)
    if executor == "host":
        return host._colour(
            tf.constant(image), Decisions(*map(tf.constant, map(float, row))), view
        ).numpy()
    return np.asarray(apply(image[None, None], np.array([[row]], np.float32), (view,)))[0, 0]


both = pytest.mark.parametrize("executor", ["host", "device"])


def pixels() -> np.ndarray:
    return crop().astype(np.float64) / 255


@both
def test_image_is_unchanged_without_decisions(executor):
    view = View(size=32, solarize=0.5)
    np.testing.assert_allclose(run(executor, view, crop(), blur_sigma=1), pixels(), atol=1e-7)


@both
@pytest.mark.parametrize("factor", [0.2, 0.7, 1.0, 1.8])
def test_brightness_multiplies(executor, factor):
    view = OFF._replace(jitter=1, contrast=0, saturation=0, hue=0)
    got = run(executor, view, crop(), jitter=1, brightness=factor)
    np.testing.assert_allclose(got, np.clip(pixels() * factor, 0, 1), atol=2e-7)


@both
@pytest.mark.parametrize("factor", [0.2, 1.0, 1.8])
def test_contrast_scales_around_the_channel_mean(executor, factor):
    view = OFF._replace(jitter=1, brightness=0, saturation=0, hue=0)
    x = pixels()
    mean = x.mean((0, 1))
    got = run(executor, view, crop(), jitter=1, contrast=factor)
    np.testing.assert_allclose(got, np.clip(mean + factor * (x - mean), 0, 1), atol=1e-6)


def hsv(x: np.ndarray, change) -> np.ndarray:
    flat = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*p))) for p in x.reshape(-1, 3)]
    return np.clip(np.reshape(flat, x.shape), 0, 1)


@both
@pytest.mark.parametrize("factor", [0.2, 1.0, 1.8])
def test_saturation_is_that_of_hsv(executor, factor):
    view = OFF._replace(jitter=1, brightness=0, contrast=0, hue=0)
    got = run(executor, view, crop(), jitter=1, saturation=factor)
    want = hsv(pixels(), lambda h, s, v: (h, min(1, s * factor), v))
    np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_allclose(
        got, tf.image.adjust_saturation(pixels().astype(np.float32), factor), atol=1e-6
    )


@both
@pytest.mark.parametrize("turns", [-0.5, -0.2, 0.0, 0.1, 0.5])
def test_hue_is_that_of_hsv(executor, turns):
    view = OFF._replace(jitter=1, brightness=0, contrast=0, saturation=0)
    got = run(executor, view, crop(), jitter=1, hue=turns)
    want = hsv(pixels(), lambda h, s, v: ((h + turns) % 1, s, v))
    np.testing.assert_allclose(got, want, atol=2e-6)
    np.testing.assert_allclose(
        got, tf.image.adjust_hue(pixels().astype(np.float32), turns), atol=2e-6
    )


@both
@pytest.mark.parametrize("order", [0, 5, 9, 14, 18, 23])
def test_jitter_operations_run_in_the_decided_order(executor, order):
    """The result depends on the order, because values are clipped after each operation."""
    b, c, s, h = 1.7, 1.6, 1.5, 0.15
    x = pixels()
    for op in ORDERS[order]:
        if op == 0:
            x = x * b
        elif op == 1:
            x = x.mean((0, 1)) + c * (x - x.mean((0, 1)))
        elif op == 2:
            x = hsv(x, lambda hue, sat, v: (hue, min(1, sat * s), v))
        else:
            x = hsv(x, lambda hue, sat, v: ((hue + h) % 1, sat, v))
        x = np.clip(x, 0, 1)
    factors = {"brightness": b, "contrast": c, "saturation": s, "hue": h}
    got = run(executor, OFF._replace(jitter=1), crop(), jitter=1, order=order, **factors)
    np.testing.assert_allclose(got, x, atol=5e-6)


@both
def test_grayscale_has_the_weights_of_rec_601(executor):
    got = run(executor, OFF._replace(grayscale=1), crop(), grayscale=1)
    want = tf.image.rgb_to_grayscale(pixels().astype(np.float32)).numpy().repeat(3, -1)
    np.testing.assert_allclose(got, want, atol=2e-7)
    pillow = np.asarray(Image.fromarray(crop()).convert("L"))[..., None] / 255
    np.testing.assert_allclose(got, pillow.repeat(3, -1), atol=1 / 255)


@both
@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_blur_is_a_mirrored_gaussian(executor, sigma):
    view = OFF._replace(blur=1, blur_kernel=0.4)
    assert blur_radius(view) == 6
    got = run(executor, view, crop(), blur=1, blur_sigma=sigma)
    axes = {"axes": (0, 1), "mode": "mirror", "radius": 6}
    want = scipy.ndimage.gaussian_filter(pixels(), sigma, **axes)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_blur_kernel_of_224_pixels_has_width_23():
    assert 2 * blur_radius(View(size=224)) + 1 == 23


@both
@pytest.mark.parametrize("sigma", [0.1, 1.0, 2.0])
def test_blur_with_kernel_0_is_the_whole_gaussian(executor, sigma):
    view = OFF._replace(blur=1, blur_kernel=0)
    got = run(executor, view, crop(), blur=1, blur_sigma=sigma)
    whole = {"axes": (0, 1), "mode": "mirror", "radius": 30}
    want = scipy.ndimage.gaussian_filter(pixels(), sigma, **whole)
    np.testing.assert_allclose(got, want, atol=1e-4)


@both
def test_blur_with_kernel_0_is_that_of_pillow(executor):
    """Pillow repeats the edges instead of mirroring them, and has 8 bits."""
    view = OFF._replace(blur=1, blur_kernel=0)
    pillow = np.asarray(Image.fromarray(crop()).filter(ImageFilter.GaussianBlur(2))) / 255
    inside = slice(8, -8)

    def error(view):
        blurred = run(executor, view, crop(), blur=1, blur_sigma=2)
        return np.abs(blurred - pillow)[inside, inside].mean()

    assert error(view) < 1 / 255
    assert error(view._replace(blur_kernel=0.1)) > 10 / 255  # 3 pixels


@pytest.mark.parametrize(("size", "radius"), [(224, 8), (32, 8), (5, 4), (1, 0)])
def test_whole_gaussian_fits_into_the_mirrored_view(size, radius):
    assert blur_radius(View(size=size, blur_kernel=0)) == radius
    assert blur_radius(View(size=size, blur_kernel=0, blur_sigma=(0.1, 1e308))) == size - 1


@both
def test_solarize_inverts_from_the_threshold_up(executor):
    got = run(executor, OFF._replace(solarize=1), crop(), solarize=1)
    pillow = np.asarray(ImageOps.solarize(Image.fromarray(crop()), 128)) / 255
    np.testing.assert_allclose(got, pillow, atol=1e-6)


def test_noise_is_normal_and_equal_in_both_executors():
    size = 64
    fields = np.stack([host._gaussian(tf.constant(float(s)), size) for s in (0, 1, 2, 2**23 - 1)])
    for seed, field in zip((0, 1, 2, 2**23 - 1), fields, strict=True):
        np.testing.assert_allclose(device._gaussian(np.float32(seed), size), field, atol=3e-6)
        assert scipy.stats.kstest(field.ravel(), "norm").pvalue > 1e-3
        flat = field[..., 0] - field.mean()
        for axis in (0, 1):  # neighbours are uncorrelated
            assert abs((flat * np.roll(flat, 1, axis)).mean()) < 5 / size
    across = np.corrcoef(fields.reshape(4, -1))
    assert abs(across - np.eye(4)).max() < 5 / size
    lagged = [
        np.corrcoef(fields[0].ravel()[k:], fields[1].ravel()[:-k])[0, 1] for k in range(1, 40)
    ]
    assert np.max(np.abs(lagged)) < 5 / size


@both
def test_noise_is_added_and_clipped(executor):
    image = np.full((32, 32, 3), 128, np.uint8)
    view = OFF._replace(noise=0.5)
    got = run(executor, view, image, noise=0.1, noise_seed=77)
    assert abs((got - 128 / 255).std() - 0.1) < 5 * 0.1 / np.sqrt(2 * 32 * 32)
    np.testing.assert_array_equal(got[..., 0], got[..., 2])
    strong = run(executor, view, image, noise=0.5, noise_seed=77)
    assert (strong.min(), strong.max()) == (0, 1)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("box", [(20, 10, 100, 70), (20, 10, 36, 22)], ids=["smaller", "larger"])
def test_crop_is_resized_and_mirrored(interpolation, box):
    """The oracles are Pillow's filters, which also widen their kernels for smaller outputs."""
    y, x = np.mgrid[:90, :120] / 20
    waves = np.stack([np.sin(y + x), np.cos(2 * x), np.sin(3 * y)], -1)
    image = np.uint8(127 + 120 * waves)
    left, top, right, bottom = box
    d = Decisions(top=top, left=left, height=bottom - top, width=right - left, flip=1)
    view = OFF._replace(flip=1, interpolation=interpolation)
    (got,) = host._crops(tf.constant(image), tf.constant([d], tf.float32), [view])

    def error(name):
        resampling = Image.Resampling[name.upper()]
        pillow = Image.fromarray(image).crop(box).resize((32, 32), resampling)
        return np.abs(got.numpy()[:, ::-1].astype(int) - np.asarray(pillow))

    other = {"bicubic": "bilinear", "bilinear": "bicubic"}[interpolation]
    assert error(interpolation).max() <= 6
    assert error(interpolation).mean() < 0.5
    assert error(interpolation).mean() < error(other).mean()


@pytest.mark.parametrize("shape", [(90, 120), (120, 61), (5, 400), (400, 5)])
def test_center_view_shows_the_central_window(shape):
    """The oracle is Pillow, which resamples the same window with edges between pixels."""
    height, width = shape
    y, x = np.mgrid[:height, :width] / 9
    image = np.uint8(127 + 60 * np.stack([np.sin(y + x), np.cos(x), np.sin(y)], -1))
    got = host.center_view(tf.constant(image), size=28, crop=0.875).numpy()
    side = 0.875 * min(shape)
    left, top = (width - side) / 2, (height - side) / 2
    window = (left, top, left + side, top + side)
    pillow = Image.fromarray(image).resize((28, 28), Image.Resampling.BICUBIC, box=window)
    error = np.abs(got.astype(int) - np.asarray(pillow))
    assert got.dtype == np.uint8
    assert error.max() <= 8
    assert error.mean() < 0.7


def test_center_view_of_an_image_of_the_same_size_is_the_image():
    np.testing.assert_array_equal(host.center_view(tf.constant(crop()), size=32, crop=1.0), crop())
