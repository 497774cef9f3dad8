"""Split-brain autoencoder: both losses against NumPy, separate halves, pictures, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from skimage import color

from ssl_jax.methods import Run, split_brain
from ssl_jax.models.lab_bins import colour_bins
from ssl_jax.models.map_head import MapHead
from ssl_jax.models.resnet import BasicBlock
from ssl_jax.models.split import SplitResNet

N, SIZE, STRIDE = 4, 8, 4
RNG = np.random.default_rng(0)
IMAGES = RNG.random((N, SIZE, SIZE, 3))
DEPTH = RNG.random((N, SIZE, SIZE, 4))
RGB_D = {"first": (0, 1, 2), "second": (3,), "colors": "rgb"}
KEY, STEP = jax.random.key(0), jnp.zeros((), jnp.int32)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def encoder(**options):
    fields = {"width": 1 / 8, "stem": "cifar", "colors": "lab", "dtype": jnp.float64}
    return SplitResNet(BasicBlock, (1,), **(fields | options))


def make(channels=3, module=None, **options):
    run = Run(tiny.seen(1, SIZE, channels), 8, N, num_examples=N)
    return split_brain.make(module or encoder(), run, **({"hidden_dim": 4} | options))


def batch(images):
    return {"views": jnp.asarray(images)[:, None], "index": jnp.arange(len(images))}


def start(method, images):
    """Returns params, extra, and the constant predictions of both heads."""
    params, extra = method.init(jax.random.key(1), batch(images))
    rng, constants = np.random.default_rng(5), []
    for name in ("first_head", "second_head"):
        head = params[name]["outputs"]
        constants.append(rng.normal(size=head["bias"].shape))
        params[name]["outputs"] = {
            "kernel": jnp.zeros_like(head["kernel"], jnp.float64),
            "bias": jnp.asarray(constants[-1]),
        }
    return params, extra, constants


def step(method, params, extra, images):
    outputs, _ = method.encode(params, extra, batch(images), KEY)
    loss, (_, metrics) = method.objective(params, extra, outputs, KEY, STEP)
    return loss, metrics


def test_classification_equals_cross_entropy_with_the_nearest_bins():
    method = make()
    params, extra, constants = start(method, IMAGES)
    loss, metrics = step(method, params, extra, IMAGES)
    lab = color.rgb2lab(IMAGES)[:, ::STRIDE, ::STRIDE]
    distance = np.square(lab[..., None, 1:] - colour_bins()).sum(-1)
    truth = [distance.argmin(-1).ravel(), np.floor(lab[..., 0]).astype(int).ravel()]
    losses, accuracy, chance = [], [], []
    for logits, nearest in zip(constants, truth, strict=True):
        log_p = logits - np.log(np.exp(logits).sum())
        losses.append(-log_p[nearest].mean())
        accuracy.append((nearest == logits.argmax()).mean())
        chance.append(np.bincount(nearest).max() / len(nearest))
    np.testing.assert_allclose(loss, sum(losses), rtol=1e-9)
    np.testing.assert_allclose(metrics["pretext_accuracy"], np.mean(accuracy))
    np.testing.assert_allclose(metrics["pretext_chance"], np.mean(chance))


@pytest.mark.parametrize(
    ("options", "images"),
    [({}, IMAGES), ({"mean": (0.1,) * 4, "std": (0.5,) * 4} | RGB_D, DEPTH)],
    ids=["lab", "rgb and depth"],
)
def test_regression_equals_half_of_the_squared_error(options, images):
    module = encoder(**options)
    method = make(images.shape[-1], module, loss="regression")
    params, extra, constants = start(method, images)
    loss, metrics = step(method, params, extra, images)
    seen = (images - 0.1) / 0.5
    if not options:
        seen = (color.rgb2lab(images) - [50, 0, 0]) / [100, 110, 110]
    seen = seen[:, ::STRIDE, ::STRIDE]
    targets = [seen[..., list(module.second)], seen[..., list(module.first)]]
    errors = [((c - t) ** 2).mean() / 2 for c, t in zip(constants, targets, strict=True)]
    chance = [t.reshape(-1, t.shape[-1]).var(0).mean() / 2 for t in targets]
    np.testing.assert_allclose(loss, sum(errors), rtol=1e-9)
    np.testing.assert_allclose(metrics["pretext_error"], np.mean(errors), rtol=1e-9)
    np.testing.assert_allclose(metrics["pretext_error_chance"], np.mean(chance), rtol=1e-6)


@pytest.mark.parametrize(("own", "other"), [("first", "second"), ("second", "first")])
def test_a_half_learns_only_from_its_own_prediction(own, other):
    method = make()
    params, extra = method.init(jax.random.key(1), batch(IMAGES))
    params[f"{other}_head"] = jax.tree.map(jnp.zeros_like, params[f"{other}_head"])

    def loss(params):
        return step(method, params, extra, IMAGES)[0]

    gradient = jax.grad(loss)(params)["encoder"]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient[other]))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient[own]))


def test_pictures_of_lab_replace_one_group_by_its_prediction():
    method = make()
    params, extra, (colours, lightness) = start(method, IMAGES)
    (picture,) = method.pictures
    grid = np.asarray(picture.draw(params, extra, jnp.asarray(IMAGES), KEY))
    lab = color.rgb2lab(IMAGES)
    p, q = np.exp(colours / 0.38), np.exp(lightness / 0.38)
    ab = np.broadcast_to(p / p.sum() @ colour_bins(), (*lab.shape[:3], 2))
    mean = q / q.sum() @ (np.arange(100) + 0.5)
    columns = [lab, np.concatenate([lab[..., :1], ab], -1), np.where([True, 0, 0], mean, lab)]
    for i, expected in enumerate(columns):
        np.testing.assert_allclose(grid[:, i], color.lab2rgb(expected), atol=1e-6)
    assert picture.columns == ("original", "predicted colours", "predicted lightness")


def test_pictures_of_other_groups_show_each_group_and_its_prediction():
    module = encoder(**RGB_D, mean=(0.5,) * 4, std=(0.25,) * 4)
    method = make(4, module, loss="regression")
    params, extra, (depth, rgb) = start(method, DEPTH)
    (picture,) = method.pictures
    grid = np.asarray(picture.draw(params, extra, jnp.asarray(DEPTH), KEY))
    np.testing.assert_allclose(grid[:, 0], DEPTH[..., :3], atol=1e-6)
    np.testing.assert_allclose(grid[:, 2], np.repeat(DEPTH[..., 3:], 3, -1), atol=1e-6)
    for column, constant in ((1, rgb), (3, depth)):
        expected = np.clip(constant * 0.25 + 0.5, 0, 1)
        np.testing.assert_allclose(grid[:, column], np.zeros_like(grid[:, 0]) + expected, atol=1e-6)


def test_pictures_read_predictions_at_their_pixels():
    module = encoder(**RGB_D)
    method = make(4, module, loss="regression")
    params, extra = method.init(jax.random.key(1), batch(DEPTH))
    variables = {
        name: {"params": params[name], "batch_stats": extra["batch_stats"][name]}
        for name in ("encoder", "first_head")
    }
    maps = module.clone(pool="none").apply(variables["encoder"], jnp.asarray(DEPTH), False)
    head = MapHead(SIZE // STRIDE, 1, 4, STRIDE, module.grid, dtype=jnp.float64)
    depth = head.apply(variables["first_head"], maps[..., : maps.shape[-1] // 2], False)
    for axis in (1, 2):
        depth = np.apply_along_axis(
            lambda x: np.interp(range(SIZE), [0, STRIDE], x), axis, np.asarray(depth)
        )
    grid = method.pictures[0].draw(params, extra, jnp.asarray(DEPTH), KEY)
    np.testing.assert_allclose(grid[:, 3], np.repeat(depth, 3, -1).clip(0, 1), atol=1e-6)


def test_an_encoder_without_halves_is_refused():
    with pytest.raises(ValueError, match="needs an encoder of two halves"):
        make(module=tiny.Encoder())


@pytest.mark.parametrize(
    ("first", "second"), [((0,), (1,)), ((0, 1), (1, 2)), ((0,), (1, 2, 3)), ((0, 1, 2), ())]
)
def test_groups_that_do_not_divide_the_channels_are_refused(first, second):
    with pytest.raises(ValueError, match="must be in exactly one of two groups"):
        make(module=encoder(first=first, second=second))


def test_classification_needs_groups_with_bins():
    with pytest.raises(ValueError, match=r"Set method\.loss to 'regression'"):
        make(module=encoder(first=(0, 1), second=(2,)))
    with pytest.raises(ValueError, match=r"Set method\.loss to 'regression'"):
        make(4, encoder(**RGB_D))


def test_lab_of_grey_images_is_refused():
    with pytest.raises(ValueError, match=r"have 1 channel.*data.channels to 3"):
        make(1)


@pytest.mark.parametrize("options", [{"loss": "l1"}, {"stride": 9}, {"hidden_dim": 0}], ids=str)
def test_values_out_of_range_are_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        make(**options)
