"""Colorization: loss against NumPy and scikit-image, grey images, frequencies, pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from skimage import color

from ssl_jax.methods import Run, colorization
from ssl_jax.models.lab_bins import colour_bins
from ssl_jax.models.map_head import MapHead
from ssl_jax.models.resnet import BasicBlock, ResNet

N, SIZE, STRIDE = 4, 8, 4
BINS = colour_bins()
RNG = np.random.default_rng(0)
IMAGES = RNG.random((N, SIZE, SIZE, 3))
GREY = np.repeat(RNG.random((N, SIZE, SIZE, 1)), 3, axis=-1)
KEY, STEP = jax.random.key(0), jnp.zeros((), jnp.int32)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def encoder(**options):
    fields = {"width": 1 / 8, "stem": "cifar", "colors": "lightness", "dtype": jnp.float64}
    return ResNet(BasicBlock, (1,), **(fields | options))


def make(channels=3, module=None, **options):
    run = Run(tiny.seen(1, SIZE, channels), 8, N, num_examples=N)
    return colorization.make(module or encoder(), run, **({"hidden_dim": 4} | options))


def batch(images):
    return {"views": jnp.asarray(images)[:, None], "index": jnp.arange(len(images))}


def start(method):
    """Returns params and extra; the head predicts the same random logits everywhere."""
    params, extra = method.init(jax.random.key(1), batch(IMAGES))
    head = params["head"]["outputs"]
    logits = np.random.default_rng(5).normal(size=len(BINS))
    params["head"]["outputs"] = {
        "kernel": jnp.zeros_like(head["kernel"], jnp.float64),
        "bias": jnp.asarray(logits),
    }
    return params, extra, logits


def step(method, params, extra, images):
    """Returns loss, new extra and metrics."""
    outputs, _ = method.encode(params, extra, batch(images), KEY)
    loss, (extra, metrics) = method.objective(params, extra, outputs, KEY, STEP)
    return loss, extra, metrics


def expected_loss(images, logits, weights, neighbours):
    """Returns the loss and the bins by loops over the places of coloured images."""
    ab = color.rgb2lab(images)[:, ::STRIDE, ::STRIDE, 1:].reshape(-1, 2)
    log_p = logits - np.log(np.exp(logits).sum())
    losses, nearest = [], []
    for value in ab:
        distance = np.linalg.norm(BINS - value, axis=1)
        order = np.argsort(distance)
        target = np.exp(-(distance[order[:neighbours]] ** 2) / 50)
        cross_entropy = -(target / target.sum()) @ log_p[order[:neighbours]]
        losses.append(weights[order[0]] * cross_entropy)
        nearest.append(order[0])
    return np.mean(losses), np.array(nearest)


def weights_of(counts, uniform):
    distance = np.square(BINS[:, None] - BINS[None]).sum(-1)
    kernel = np.exp(-distance / 50)
    smooth = counts / counts.sum() @ (kernel / kernel.sum(1, keepdims=True))
    weights = 1 / ((1 - uniform) * smooth + uniform / len(BINS))
    return weights / (smooth @ weights)


@pytest.mark.parametrize(("neighbours", "uniform"), [(5, 0.5), (1, 1.0), (10, 0.2)])
def test_two_steps_equal_loops(neighbours, uniform):
    method = make(neighbours=neighbours, uniform=uniform)
    params, extra, logits = start(method)
    counts = np.full(len(BINS), 1 / len(BINS))
    for images in (IMAGES, IMAGES[::-1] ** 2):
        loss, extra, metrics = step(method, params, extra, images)
        weights = weights_of(counts, uniform)
        expected, nearest = expected_loss(images, logits, weights, neighbours)
        # float32 bounds the constants of the smoothing kernel and of Lab at 1e-16, not the loss.
        np.testing.assert_allclose(loss, expected, rtol=1e-9)
        found = np.bincount(nearest, minlength=len(BINS)) / len(nearest)
        guess = np.argmax(logits - np.log(weights))
        np.testing.assert_allclose(metrics["pretext_accuracy"], found[guess], rtol=1e-9)
        np.testing.assert_allclose(metrics["pretext_chance"], found.max(), rtol=1e-9)
        counts = 0.99 * counts + N * found
        np.testing.assert_allclose(extra["counts"], counts, rtol=1e-9, atol=1e-12)


def test_grey_images_have_no_loss_and_do_not_count():
    method = make()
    params, extra, _ = start(method)
    mixed = np.concatenate([IMAGES[:2], GREY[:2]])
    alone, extra_alone, _ = step(method, params, extra, IMAGES[:2])
    loss, extra_mixed, metrics = step(method, params, extra, mixed)
    np.testing.assert_allclose(loss, alone, rtol=1e-12)
    np.testing.assert_allclose(extra_mixed["counts"], extra_alone["counts"], rtol=1e-12)
    assert metrics["grey_images"] == 0.5


def test_a_batch_of_grey_images_has_loss_0_and_finite_gradients():
    method = make()
    params, extra, _ = start(method)

    def loss(params):
        return step(method, params, extra, GREY)[0]

    value, gradient = jax.value_and_grad(loss)(params)
    assert value == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))
    _, after, metrics = step(method, params, extra, GREY)
    assert metrics["grey_images"] == 1
    assert metrics["pretext_accuracy"] == metrics["pretext_chance"] == 0
    np.testing.assert_array_equal(after["counts"], extra["counts"])


def test_many_grey_batches_leave_frequencies_and_loss_as_they_are():
    method = make()
    params, extra, _ = start(method)
    _, extra, _ = step(method, params, extra, IMAGES)
    grey, _ = method.encode(params, extra, batch(GREY), KEY)

    def update(i, extra):
        return method.objective(params, extra, grey, KEY, i)[1][0]

    after = jax.lax.fori_loop(0, 80_000, update, extra)  # 0.99^80_000 is 0 even in float64
    np.testing.assert_array_equal(after["counts"], extra["counts"])
    loss = step(method, params, after, IMAGES)[0]
    assert np.isfinite(loss)
    assert loss == step(method, params, extra, IMAGES)[0]


@pytest.mark.parametrize(("a", "coloured"), [(4.9, False), (5.1, True)])
def test_an_image_is_grey_below_5_units_of_colour(a, coloured):
    lab = np.zeros((1, SIZE, SIZE, 3))
    lab[..., 0] = 60
    lab[0, 0, STRIDE, 1] = a
    method = make()
    params, extra, _ = start(method)
    _, _, metrics = step(method, params, extra, color.lab2rgb(lab))
    assert metrics["grey_images"] == 1 - coloured


def test_features_depend_on_the_lightness_only():
    lab = color.rgb2lab(IMAGES) * [0.2, 0.1, 0.1] + [50, 0, 0]  # inside the gamut
    method = make()
    params, extra, _ = start(method)
    one, other = (
        method.features(params, extra, jnp.asarray(color.lab2rgb(lab * [1, sign, sign])))
        for sign in (1, -1)
    )
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_pictures_show_lightness_prediction_and_original():
    method = make()
    params, extra, logits = start(method)
    (picture,) = method.pictures
    grid = np.asarray(picture.draw(params, extra, jnp.asarray(IMAGES), KEY))
    assert grid.shape == (N, 3, SIZE, SIZE, 3)
    assert len(picture.columns) == 3
    lab = color.rgb2lab(IMAGES)
    p = np.exp(logits / 0.38)
    for column, ab in enumerate([(0, 0), p / p.sum() @ BINS]):
        expected = np.concatenate([lab[..., :1], np.broadcast_to(ab, (*lab.shape[:3], 2))], -1)
        np.testing.assert_allclose(grid[:, column], color.lab2rgb(expected), atol=1e-6)
    np.testing.assert_array_equal(grid[:, 2], IMAGES)


def test_pictures_read_predictions_at_their_pixels():
    method, module = make(), encoder(pool="none")
    params, extra = method.init(jax.random.key(1), batch(IMAGES))
    variables = {
        name: {"params": params[name], "batch_stats": extra["batch_stats"][name]}
        for name in ("encoder", "head")
    }
    maps = module.apply(variables["encoder"], jnp.asarray(IMAGES), False)
    head = MapHead(SIZE // STRIDE, len(BINS), 4, STRIDE, module.grid, dtype=jnp.float64)
    p = np.exp(np.asarray(head.apply(variables["head"], maps, False)) / 0.38)
    ab = p / p.sum(-1, keepdims=True) @ BINS
    for axis in (1, 2):
        ab = np.apply_along_axis(lambda x: np.interp(range(SIZE), [0, STRIDE], x), axis, ab)
    expected = color.lab2rgb(np.concatenate([color.rgb2lab(IMAGES)[..., :1], ab], -1))
    grid = method.pictures[0].draw(params, extra, jnp.asarray(IMAGES), KEY)
    np.testing.assert_allclose(grid[:, 1], expected, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_without_rgb_are_refused(channels):
    with pytest.raises(ValueError, match=rf"{channels} channel.*data.channels to 3"):
        make(channels)


def test_grey_data_sets_are_told_that_there_are_no_colours():
    with pytest.raises(ValueError, match="grey images have no colours to predict"):
        make(1)


@pytest.mark.parametrize("module", [tiny.Encoder(), encoder(colors="rgb"), encoder(colors="lab")])
def test_encoders_that_see_colours_are_refused(module):
    with pytest.raises(ValueError, match=r"set model\.colors to 'lightness'"):
        make(module=module)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 0},
        {"stride": SIZE + 1},
        {"neighbours": 0},
        {"neighbours": 314},
        {"uniform": 1.1},
        {"uniform": -0.1},
        {"temperature": 0.0},
        {"hidden_dim": 0},
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        make(**options)
