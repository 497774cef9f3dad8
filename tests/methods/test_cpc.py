"""CPC: predictions see no later pixel, and the loss is the paper's over the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ssl_jax import parallel
from ssl_jax.methods import Run, cpc
from ssl_jax.models.context import DIRECTIONS
from ssl_jax.models.resnet import BasicBlock, ResNet

B, SIZE, PATCH, STRIDE, SIDE = 8, 12, 4, 2, 5
SMALL = {"context_dim": 4, "context_depth": 2, "target_dim": 3}
KEY = jax.random.key(5)


def make(size=SIZE, channels=3, encoder=None, **options):
    grid = {"norm": "layer", "zero_gamma": False, "patch": PATCH, "patch_stride": STRIDE}
    network = ResNet(BasicBlock, (1,), 1 / 8, "cifar", **grid | (encoder or {}))
    run = Run(tiny.seen(1, size, channels), 8, B, num_examples=B)
    return cpc.make(network, run, **SMALL | {"first_step": 2} | options)


def batch(channels=3):
    views = np.random.default_rng(2).random((B, 1, SIZE, SIZE, channels), np.float32)
    return {"views": jnp.asarray(views), "index": jnp.arange(B, dtype=jnp.int32)}


def started(**options):
    method = make(**options)
    params, extra = method.init(jax.random.key(1), batch(options.get("channels", 3)))
    encode = jax.jit(lambda views: method.encode(params, extra, batch() | {"views": views}, KEY)[0])
    return method, params, extra, encode


def predictions_by_direction(directions, first, steps):
    """Returns (direction, row of the context in the order of reading) of each prediction."""
    return [
        (direction, row)
        for direction in DIRECTIONS[:directions]
        for step in range(first, min(first + steps, SIDE))
        for i, j in np.ndindex(SIDE, SIDE)
        for row in [{"down": i, "up": SIDE - 1 - i, "right": j, "left": SIDE - 1 - j}[direction]]
        if row < SIDE - step
    ]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_predictions_do_not_depend_on_pixels_below_the_last_row_read(direction):
    _, _, _, encode = started(directions=4, first_step=1, steps=4)
    views = batch()["views"]
    before = np.asarray(encode(views)["predictions"])
    order = predictions_by_direction(4, 1, 4)
    axis = 2 if direction in ("down", "up") else 3
    for row in range(SIDE - 1):
        seen = row * STRIDE + PATCH  # pixels that the patches up to this row cover
        later = np.zeros(SIZE, bool)
        later[seen:] = True
        later = later if direction in ("down", "right") else later[::-1]
        shape = [SIZE if a == axis else 1 for a in range(5)]
        moved = jnp.where(later.reshape(shape), 1 - views, views)
        after = np.asarray(encode(moved)["predictions"])
        known = [d == direction and at <= row for d, at in order]
        np.testing.assert_array_equal(after[:, known], before[:, known])
        unknown = [d == direction and at == row + 1 for d, at in order]
        if any(unknown):
            assert np.all(np.any(after[:, unknown] != before[:, unknown], axis=-1))


def test_the_first_step_of_v1_predicts_pixels_that_the_context_has_not_seen():
    """A patch two rows on begins where the context's row ends; one row on, half is known."""
    *_, encode = started(directions=1, first_step=2, steps=1)
    views = batch()["views"]
    moved = views.at[:, :, :PATCH].set(1 - views[:, :, :PATCH])  # the pixels of the first row
    before, after = (np.asarray(encode(x)["targets"]).reshape(B, SIDE, -1) for x in (views, moved))
    np.testing.assert_array_equal(after[:, 2:], before[:, 2:])
    assert np.any(after[:, 1] != before[:, 1])


@pytest.mark.parametrize("target_dim", [0, 3])
def test_loss_is_the_cross_entropy_among_all_patches_of_the_batch(target_dim):
    scale = 0.7
    method, params, extra, encode = started(
        directions=1, first_step=2, steps=2, target_dim=target_dim, scale=scale
    )
    outputs = encode(batch()["views"])
    targets = np.asarray(outputs["targets"], np.float64).reshape(B, SIDE, SIDE, -1)
    every = targets.reshape(B * SIDE * SIDE, -1)
    predictions = iter(np.asarray(outputs["predictions"], np.float64).swapaxes(0, 1))
    terms, right = [], []
    for step in (2, 3):
        for row in range(SIDE - step):
            for column in range(SIDE):
                for image, prediction in enumerate(next(predictions)):
                    scores = scale * every @ prediction
                    own = scale * targets[image, row + step, column] @ prediction
                    terms.append(np.log(np.exp(scores).sum()) - own)
                    right.append(scores.max() <= own + 1e-9)
    assert next(predictions, None) is None
    loss, (_, metrics) = method.objective(params, extra, outputs, KEY, 0)
    assert float(loss) == pytest.approx(np.mean(terms), rel=1e-5)
    assert float(metrics["contrastive_accuracy"]) == pytest.approx(np.mean(right))
    assert float(metrics["contrastive_chance"]) == pytest.approx(1 / (B * SIDE**2))


def test_features_are_the_mean_encoding_of_whole_patches():
    method, params, extra, encode = started()
    images = batch()["views"][:, 0]
    features = method.features(params, extra, images)
    np.testing.assert_allclose(
        encode(batch()["views"])["features"][:, 0], features, rtol=1e-5, atol=1e-6
    )
    augmented, *_, encode = started(patch_crop=2)
    assert np.any(np.abs(encode(batch()["views"])["features"][:, 0] - features) > 1e-3)
    np.testing.assert_array_equal(augmented.features(params, extra, images), features)


def test_grey_images_are_supported():
    *_, encode = started(channels=1, patch_crop=1)
    assert np.isfinite(encode(batch(1)["views"])["predictions"]).all()


def test_8_devices_share_the_work_equally():
    method = make(directions=4, patch_crop=1, patch_jitter=0.5)
    params, extra = method.init(jax.random.key(1), batch())

    def loss(params, rows):
        outputs, _ = method.encode(params, extra, rows, KEY)
        return method.objective(params, extra, outputs, KEY, 0)[0]

    flops = []
    for devices in (1, 8):
        mesh = parallel.make_mesh(jax.devices()[:devices])
        with jax.set_mesh(mesh):
            rows = parallel.to_global({k: np.asarray(v) for k, v in batch().items()}, mesh)
            step = jax.jit(jax.value_and_grad(loss)).lower(params, rows).compile()
        flops.append(step.cost_analysis()["flops"])
    assert flops[1] * 8 < 1.02 * flops[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": {"patch": 0, "patch_stride": 0}}, "Set model.patch"),
        ({"size": 3}, "smaller than a patch of 4"),
        ({"size": 6}, "predicts no row of a grid of 2 x 2"),
        ({"first_step": 0}, "first_step rows"),
        ({"first_step": 5}, "first_step rows"),
        ({"steps": 0}, "both must be at least 1"),
        ({"directions": 5}, "directions must be 1 to 4"),
        ({"directions": 0}, "directions must be 1 to 4"),
        ({"target_dim": -1}, "at least 0"),
        ({"context_dim": 0}, "at least 1"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"patch_crop": 4}, r"patch_crop must be in \[0, 4\)"),
        ({"patch_jitter": 1.5}, "probabilities must be in"),
        ({"patch_color_drop": 0.5, "channels": 1}, "patch_color_drop need RGB images"),
    ],
)
def test_bad_options_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_other_encoders_and_two_views_are_refused():
    run = Run(tiny.seen(1, SIZE), 8, B, num_examples=B)
    with pytest.raises(ValueError, match="needs a ResNet with patches"):
        cpc.make(tiny.Encoder(), run)
    network = ResNet(
        BasicBlock, (1,), 1 / 8, "cifar", norm="layer", patch=PATCH, patch_stride=STRIDE
    )
    with pytest.raises(ValueError, match="takes 1 view, got 2"):
        cpc.make(network, run._replace(seen=tiny.seen(2, SIZE)))
