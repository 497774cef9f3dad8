"""Host and device give the same pixels for all recipes, orders and degrees of parallelism."""

import functools

import emitters
import jax
import numpy as np
import pytest
import tensorflow as tf
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssl_jax.inputs.image import device, host
from ssl_jax.inputs.image.recipes import RECIPES
from ssl_jax.inputs.image.views import Decisions, View

SIGNATURE = [tf.TensorSpec([None, None, 3], tf.uint8), *[tf.TensorSpec([], tf.int64)] * 2]
# The hue depends on the largest channel of a pixel. With nearly equal channels, the rounding of the
# old emitters selects another one.
apply = jax.jit(device.apply, static_argnums=2, compiler_options=emitters.AS_IN_A_RUN)


def synthetic() -> list[np.ndarray]:
    """Noise, a ramp, flat colours, greys (whose hue is undefined), and tiny and thin images."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 40 * 60 * 3).reshape(40, 60, 3).astype(np.uint8)
    blocks = rng.choice([0, 255], (9, 9, 3)).astype(np.uint8).repeat(6, 0).repeat(6, 1)
    gray = rng.integers(0, 256, (50, 30, 1), np.uint8).repeat(3, -1)
    noise = [
        rng.integers(0, 256, shape, np.uint8) for shape in [(80, 64, 3), (1, 90, 3), (3, 3, 3)]
    ]
    return [ramp, blocks, gray, np.zeros((20, 20, 3), np.uint8), *noise]


def both(views, images, epochs) -> tuple[np.ndarray, np.ndarray]:
    results = {}
    for placement in ("host", "device"):
        fn = tf.function(host.make(views, seed=11, placement=placement), SIGNATURE)
        rows = [fn(image, e, i) for e in range(epochs) for i, image in enumerate(images)]
        results[placement] = {k: np.stack([row[k] for row in rows]) for k in rows[0]}
    shipped = results["device"]
    assert shipped["views"].dtype == np.uint8
    assert shipped["decisions"].shape == (*shipped["views"].shape[:2], len(Decisions._fields))
    assert results["host"].keys() == {"views"}
    on_device = np.asarray(apply(shipped["views"], shipped["decisions"], tuple(views)))
    return results["host"]["views"], on_device


def assert_same_pixels(views, images, epochs):
    on_host, on_device = both(views, images, epochs)
    assert on_host.dtype == on_device.dtype == np.float32
    assert on_host.min() >= 0
    assert on_host.max() <= 1 + 1e-6
    assert on_host.std() > 0.1
    np.testing.assert_allclose(on_device, on_host, rtol=0, atol=3e-6)


def operations(recipe):
    """Returns which operations the views have; recipes that differ in numbers only are alike."""
    views = [v._replace(crop_area=(), crop_aspect=(), size=0)._asdict() for v in RECIPES[recipe]]
    words = ("interpolation", "blur_kernel")
    return str([{k: v if k in words else bool(v) for k, v in view.items()} for view in views])


@pytest.mark.parametrize("recipe", {operations(recipe): recipe for recipe in RECIPES}.values())
def test_every_recipe_gives_the_same_pixels_on_synthetic_images(recipe):
    views = tuple(v._replace(size=min(v.size, 40)) for v in RECIPES[recipe])
    assert_same_pixels(views, synthetic(), epochs=8)


def test_every_operation_at_full_strength_gives_the_same_pixels():
    view = View(size=24, jitter=1, hue=0.5, grayscale=0.2, blur=1, blur_kernel=0.5)
    assert_same_pixels((view._replace(solarize=1, noise=0.2),), synthetic(), epochs=12)


@pytest.mark.parametrize("recipe", ["byol", "simclr_cifar"])
def test_recipes_give_the_same_pixels_on_photographs(recipe, data_dir):
    paths = sorted((data_dir / "imagenet_sample").glob("train/*/*"))[::40][:6]
    if not paths:
        pytest.skip(f"no imagenet_sample in {data_dir}")
    decode = functools.partial(tf.io.decode_image, channels=3, expand_animations=False)
    images = [decode(tf.io.read_file(str(path))) for path in paths]
    assert_same_pixels(RECIPES[recipe], images, epochs=2)


def test_local_views_have_the_same_pixels_and_leave_full_size_views_unchanged():
    plain = View(size=20, jitter=0, blur=0, grayscale=0.5, noise=0.1)
    full = (plain, plain._replace(solarize=0.5))
    local = (plain._replace(size=9, crop_area=(0.05, 0.3), solarize=0.2),) * 3
    image = synthetic()[0]

    def rows(views, placement):
        fn = tf.function(host.make(views, seed=11, placement=placement), SIGNATURE)
        examples = [fn(image, 0, i) for i in range(24)]
        return {name: np.stack([row[name] for row in examples]) for name in examples[0]}

    on_host, shipped = rows(full + local, "host"), rows(full + local, "device")
    assert {name: value.shape for name, value in on_host.items()} == {
        "views": (24, 2, 20, 20, 3),
        "local_views": (24, 3, 9, 9, 3),
    }
    for prefix, views in (("", full), ("local_", local)):
        got = apply(shipped[f"{prefix}views"], shipped[f"{prefix}decisions"], views)
        np.testing.assert_allclose(got, on_host[f"{prefix}views"], rtol=0, atol=3e-6)
    np.testing.assert_array_equal(rows(full, "host")["views"], on_host["views"])
    small = Decisions(*np.moveaxis(shipped["local_decisions"], -1, 0))
    assert (
        small.height * small.width
    ).max() < 0.33 * 40 * 60  # at most 0.3, plus the rounding of the sides
    assert len(np.unique(small.noise_seed)) == 3 * 24


def test_pixels_do_not_depend_on_order_batch_size_and_parallelism():
    images = tf.constant(np.random.default_rng(1).integers(0, 256, (16, 20, 24, 3), np.uint8))
    fn = host.make(RECIPES["digits"], seed=2, placement="host")

    def run(order, calls, batch):
        data = tf.data.Dataset.from_tensor_slices(np.asarray(order, np.int64))
        data = data.map(lambda i: fn(images[i], np.int64(3), i)["views"], calls, deterministic=True)
        return np.concatenate(list(data.batch(batch).as_numpy_iterator()))

    expected = run(range(16), 1, 16)
    shuffled = np.random.default_rng(2).permutation(16)
    np.testing.assert_array_equal(run(shuffled, 4, 5), expected[shuffled])
    eager = fn(images[7], 3, 7)["views"].numpy()
    np.testing.assert_allclose(eager, expected[7], rtol=0, atol=1e-6)
    assert abs(expected[:, 0] - expected[:, 1]).mean() > 0.05


def test_sharded_batch_stays_on_its_devices():
    """8 devices give the same pixels, each for its rows, and the program has no collective."""
    views = tuple(v._replace(size=16, blur_kernel=0.4, noise=0.1) for v in RECIPES["byol"])
    image = np.random.default_rng(3).integers(0, 256, (30, 40, 3), np.uint8)
    fn = tf.function(host.make(views, seed=0, placement="device"), SIGNATURE)
    on_host = tf.function(host.make(views, seed=0, placement="host"), SIGNATURE)
    rows = [fn(image, 0, i) for i in range(16)]
    crops, decisions = (np.stack([row[k] for row in rows]) for k in ("views", "decisions"))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    args = jax.device_put(crops, sharding), jax.device_put(decisions, sharding)
    compiled = apply.lower(*args, views).compile()
    text = compiled.as_text()
    for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert word not in text
    result = compiled(*args)
    assert result.sharding.is_equivalent_to(sharding, 5)
    want = np.stack([on_host(image, 0, i)["views"] for i in range(16)])
    np.testing.assert_allclose(result, want, rtol=0, atol=3e-6)
