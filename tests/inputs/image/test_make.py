"""The input of images with 1, 3 and 4 channels: its arrays, and the operations that need RGB."""

import jax
import numpy as np
import pytest
import tensorflow as tf

from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.inputs.image.fields import default_fields, light_fields
from ssl_jax.inputs.image.host import center_view
from ssl_jax.inputs.image.make import input_from_views, make_input, picture
from ssl_jax.inputs.image.views import View

# Every operation that does not need RGB, on every image.
ANY_CHANNELS = View(
    size=12,
    jitter=1,
    saturation=0,
    hue=0,
    grayscale=0,
    blur=1,
    blur_kernel=0.5,
    solarize=0.5,
    noise=0.2,
)
LOCAL = ANY_CHANNELS._replace(size=7, crop_area=(0.1, 0.3))


def image(channels, shape=(40, 30)):
    return np.random.default_rng(channels).integers(0, 256, (*shape, channels), np.uint8)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_host_and_device_make_the_promised_equal_arrays(channels):
    rows = {}
    for placement in ("host", "device"):
        example_input = input_from_views(
            (ANY_CHANNELS, ANY_CHANNELS, LOCAL), seed=3, placement=placement, channels=channels
        )
        spec = tf.TensorSpec([None, None, channels], tf.uint8)
        number = tf.TensorSpec([], tf.int64)
        function = tf.function(
            example_input.host, input_signature=[{"image": spec}, number, number]
        )
        records = [function({"image": image(channels)}, 0, i) for i in range(8)]
        shipped = {name: np.stack([row[name] for row in records]) for name in records[0]}
        assert {n: (x.shape[1:], x.dtype) for n, x in shipped.items()} == {
            n: (x.shape, x.dtype) for n, x in example_input.shipped.items()
        }
        rows[placement] = jax.jit(example_input.device)(shipped)
        assert {n: (x.shape[1:], x.dtype) for n, x in rows[placement].items()} == {
            n: (x.shape, x.dtype) for n, x in example_input.seen.items()
        }
    for name, on_host in rows["host"].items():
        np.testing.assert_allclose(rows["device"][name], on_host, rtol=0, atol=3e-6)
        assert np.asarray(on_host).std((0, 1, 2, 3)).min() > 0.1  # of every channel


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_operations_that_need_rgb_are_refused_with_their_flags(channels):
    augment = default_fields() | {"jitter": 0.8, "hue": 0.1, "grayscale": 0.2}
    augment |= {"local": {"views": 2, "size": 96, "saturation": 0.0}}
    arguments = {"data": {"channels": channels}, "evaluation": {"crop": 1.0}, "seed": 0}
    with pytest.raises(Fault, match="need RGB images") as refused:
        make_input(augment=augment, **arguments)
    assert refused.value.code == BAD_CONFIG
    message = str(refused.value)
    assert message.startswith(f"data.channels={channels}: saturation, hue, grayscale need RGB")
    for name in ("saturation", "hue", "grayscale"):
        assert f"--config.augment.{name}=0" in message
        augment[name] = 0.0
    assert make_input(augment=augment, **arguments).seen["views"].shape[-1] == channels


def test_jitter_that_is_switched_off_needs_no_rgb():
    view = ANY_CHANNELS._replace(jitter=0, saturation=0.8, hue=0.2)
    assert input_from_views((view,), seed=0, channels=1).seen["views"].shape == (1, 12, 12, 1)
    with pytest.raises(Fault, match=r"data\.channels=1: grayscale need"):
        input_from_views((view._replace(grayscale=0.1),), seed=0, channels=1)
    with pytest.raises(Fault, match=r"data\.channels=4: hue need"):
        input_from_views((ANY_CHANNELS, LOCAL._replace(hue=0.1)), seed=0, channels=4)


@pytest.mark.parametrize("shape", [(40, 30), (5, 90)])
def test_center_view_treats_channels_alike(shape):
    pixels = image(4, shape)
    rgba = center_view(tf.constant(pixels), size=14, crop=0.875).numpy()
    assert rgba.shape == (14, 14, 4)
    rgb = center_view(tf.constant(pixels[..., :3]), size=14, crop=0.875).numpy()
    np.testing.assert_array_equal(rgba[..., :3], rgb)
    alpha = center_view(tf.constant(pixels[..., 3:]), size=14, crop=0.875).numpy()
    np.testing.assert_array_equal(rgba[..., 3:], alpha)


@pytest.mark.parametrize("channels", [1, 4])
def test_evaluation_and_pictures_keep_the_channels_that_they_can(channels):
    example_input = input_from_views((ANY_CHANNELS,), seed=0, channels=channels)
    record = {"image": image(channels)}
    evaluated = example_input.evaluate({"image": tf.constant(record["image"])}).numpy()
    assert evaluated.shape == example_input.evaluated.shape == (12, 12, channels)
    x = example_input.to_model(evaluated)
    np.testing.assert_allclose(x, evaluated.astype(np.float64) / 255, rtol=1e-6)
    shown = example_input.picture(evaluated)
    np.testing.assert_array_equal(shown, evaluated[..., [0, 0, 0] if channels == 1 else [0, 1, 2]])
    seen = {"views": np.zeros((2, 12, 12, channels), np.float32)}
    pictures = example_input.preview(record, seen)
    assert pictures["original"].shape == (40, 30, 3)
    assert pictures["views"].shape == (2, 12, 12, 3)
    for other in (example_input.pair(), example_input.light()):
        assert other.seen["views"].shape[1:] == (12, 12, channels)


def test_picture_of_rgb_is_the_image():
    np.testing.assert_array_equal(picture(image(3)), image(3))


def test_light_fields_keep_the_geometry_and_drop_the_colours():
    changed = {"size": 20, "crop_area": (0.3, 0.9), "crop_aspect": (0.5, 2.0), "flip": 0.1}
    changed["interpolation"] = "bilinear"
    augment = default_fields() | changed | {"placement": "device", "jitter": 0.7, "views": 3}
    light = light_fields(augment)
    assert {name: light[name] for name in changed} == changed
    assert (light["placement"], light["views"], light["jitter"]) == ("device", 1, 0.0)


def test_pair_has_the_first_and_the_second_view():
    still = View(
        size=8, crop_area=(1, 1), crop_aspect=(1, 1), flip=0, jitter=0, grayscale=0, blur=0
    )
    made = input_from_views((still, still._replace(flip=1.0)), seed=0).pair()
    pixels = image(3, (8, 8))
    first, second = np.asarray(made.host({"image": pixels}, 0, 0)["views"])
    np.testing.assert_allclose(first, pixels / 255, atol=1e-6)
    np.testing.assert_allclose(second, pixels[:, ::-1] / 255, atol=1e-6)
