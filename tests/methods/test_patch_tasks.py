"""Jigsaw and relative position: labels match the tiles, and both tasks are learned."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from ssl_jax import testing
from ssl_jax.methods import Run, jigsaw, relative_position
from ssl_jax.methods._permutations import permutation_set

B, SIZE, TILE = 16, 24, 4
RUN = Run(tiny.seen(1, SIZE), 8, B, num_examples=B)
KEY = jax.random.key(5)
JIGSAW = {"permutations": 6, "tile_size": TILE, "jitter": 2, "tile_dim": 16}
JIGSAW |= {"normalize_tiles": False}
POSITION = {"tile_size": TILE, "jitter": 2, "hidden_dim": 32}
MAKE = {"jigsaw": (jigsaw.make, JIGSAW), "position": (relative_position.make, POSITION)}


def numbered_images():
    """Images whose cell number is the brightness of the cell: 0, 0.1, ... 0.8 [b, 24, 24, 3]."""
    cells = (np.arange(9) / 10).reshape(3, 3).repeat(8, 0).repeat(8, 1)
    return np.broadcast_to(cells[..., None], (B, SIZE, SIZE, 3)).astype(np.float32)


def batch_of(images):
    index = jnp.arange(len(images), dtype=jnp.int32)
    return {"views": jnp.asarray(images)[:, None], "index": index}


def start(name, images, encoder=None, **options):
    make, fields = MAKE[name]
    method = make(encoder or Pixels(), RUN, **(fields | options))
    batch = batch_of(images)
    return method, *method.init(jax.random.key(1), batch), batch


class Pixels(tiny.Encoder):
    """Encoder that shows what it sees: mean colours, and features of a BatchNorm to train."""

    def __call__(self, x, train):
        """Images [n, h, w, c] -> features [n, c]."""
        return x.mean((1, 2))


def test_jigsaw_gives_the_tiles_in_the_order_of_the_label():
    """The classifier's input shows the cells; the label names their permutation."""
    method, params, extra, batch = start("jigsaw", numbered_images())
    # Identity weights: the classifier's weights read off one tile after the other.
    params["tile"]["dense0"]["kernel"] = jnp.ones((3, 16))
    params["tile"]["bn0"]["bias"] = jnp.full(16, 5.0)  # positive for all tiles: ReLU does nothing
    orders = np.asarray(permutation_set(6, 9), np.float64)
    # Cell numbers are read by matched filters: the largest inner product is the true order.
    kernel = np.zeros((9, 16, 6))
    kernel[:, 0] = (orders - 4).T
    params["classifier"]["dense0"]["kernel"] = jnp.asarray(kernel.reshape(144, 6), jnp.float32)
    params["classifier"]["dense0"]["bias"] = jnp.zeros(6)
    outputs, _ = method.encode(params, extra, batch, KEY)
    np.testing.assert_array_equal(outputs["logits"].argmax(-1), outputs["permutation"])
    assert len(set(outputs["permutation"].tolist())) > 3
    np.testing.assert_allclose(outputs["features"], 0.4, atol=1e-5)  # mean over the tiles
    _, (_, metrics) = method.objective(params, extra, outputs, KEY, jnp.zeros((), int))
    assert metrics["pretext_accuracy"] == 1
    np.testing.assert_allclose(metrics["pretext_chance"], 1 / 6, rtol=1e-6)


def test_relative_position_labels_the_neighbours_row_by_row():
    """The head sees centre and neighbour; the brightness of the neighbour tells its place."""
    method, params, extra, batch = start("position", numbered_images())
    head = params["head"]
    kernel = np.zeros((6, 32))
    kernel[3] = 1  # the first colour of the neighbour
    head["dense0"]["kernel"] = jnp.asarray(kernel, jnp.float32)
    head["bn0"]["bias"] = jnp.full(32, 5.0)
    cells = np.delete(np.arange(9), 4)
    # BatchNorm standardises the eight brightnesses; the nearest of them has the largest logit.
    levels = (cells - cells.mean()) / cells.std() + 5
    head["dense1"]["kernel"] = jnp.asarray(np.outer(np.eye(32)[0], 2 * levels), jnp.float32)
    head["dense1"]["bias"] = jnp.asarray(-(levels**2), jnp.float32)
    outputs, _ = method.encode(params, extra, batch, KEY)
    assert outputs["logits"].shape == (B, 8, 8)
    want = np.broadcast_to(np.arange(8), (B, 8))
    np.testing.assert_array_equal(outputs["logits"].argmax(-1), want)
    _, (_, metrics) = method.objective(params, extra, outputs, KEY, jnp.zeros((), int))
    assert metrics["pretext_accuracy"] == 1
    assert metrics["pretext_chance"] == 0.125


@pytest.mark.parametrize("name", MAKE)
def test_rows_depend_on_the_example_not_on_its_place(name):
    images = np.random.default_rng(2).random((B, SIZE, SIZE, 3)).astype(np.float32)
    method, params, extra, batch = start(name, images, tiny.Encoder())
    rows, _ = method.encode(params, extra, batch, KEY)
    flipped = {key: x[::-1] for key, x in batch.items()}
    other, _ = method.encode(params, extra, flipped, KEY)
    for key, value in rows.items():
        np.testing.assert_allclose(other[key][::-1], value, atol=1e-5)
    again, _ = method.encode(params, extra, batch, jax.random.key(6))
    assert np.abs(again["logits"] - rows["logits"]).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("jigsaw", {}),
        ("jigsaw", {"hidden_dim": 32}),
        ("position", {"colour": "project"}),
    ],
)
def test_task_is_learned_and_the_picture_shows_the_solution(name, options):
    images = numbered_images() * np.random.default_rng(3).uniform(0.9, 1, (B, 1, 1, 1))
    method, params, extra, batch = start(name, images.astype(np.float32), tiny.Encoder(), **options)
    tx = optax.adam(0.01)

    @jax.jit
    def descend(params, extra, state, step):
        def loss(p):
            key = jax.random.fold_in(KEY, step)
            outputs, stats = method.encode(p, extra, batch, key)
            value, (_, metrics) = method.objective(p, extra, outputs, key, step)
            return value, (metrics, stats)

        (_, (metrics, stats)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = tx.update(gradient, state)
        params = optax.apply_updates(params, updates)
        return params, method.after_update(params, extra, stats, step), state, metrics

    state, accuracies = tx.init(params), []
    for step in range(200):
        params, extra, state, metrics = descend(params, extra, state, step)
        accuracies.append(float(metrics["pretext_accuracy"]))
    assert np.mean(accuracies[-20:]) > 0.9
    (picture,) = method.pictures
    grid = np.asarray(jax.jit(picture.draw)(params, extra, batch["views"][:, 0], KEY))
    assert grid.shape == (B, 3, 18, 18, 3)
    assert len(picture.columns) == 3
    correct = (grid[:, 1] == grid[:, 2]).all((1, 2, 3))
    assert correct.mean() > 0.7
    # The true arrangement gets brighter from cell to cell.
    middles = grid[:, 2 if name == "jigsaw" else 0, 3::6, 3::6, 0].reshape(B, 9)
    assert (np.diff(middles) > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": "grey"}, "one of keep, drop, project; got 'grey'"),
        ({"downsample": 1.5}, "must be a probability"),
        ({"downsample": 0.3}, "patches of up to 10 pixels; got 0.3 and patches of 4 pixels"),
        ({"jitter": 9}, r"set augment\.size to 39 or more"),
    ],
)
def test_invalid_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        relative_position.make(tiny.Encoder(), RUN, **(POSITION | options))


def test_colour_guards_need_colours():
    run = RUN._replace(seen=tiny.seen(1, SIZE, 1))
    with pytest.raises(ValueError, match=r"3 channels, got 1: set method\.colour to 'keep'"):
        relative_position.make(tiny.Encoder(), run, **POSITION, colour="drop")


def test_too_many_permutations_raise():
    with pytest.raises(ValueError, match="between 2 and 362880, got 362881"):
        jigsaw.make(tiny.Encoder(), RUN, **(JIGSAW | {"permutations": 362881}))


def test_tiles_are_normalised_only_if_the_statistics_are_known():
    with pytest.raises(ValueError, match=r"set model\.mean and model\.std, or method\.normalize"):
        jigsaw.make(tiny.Encoder(), RUN, **(JIGSAW | {"normalize_tiles": True}))


def test_guards_keep_the_contract():
    options = {"tile_size": 12, "jitter": 1, "colour": "drop", "downsample": 0.5, "hidden_dim": 8}
    testing.check_method(relative_position.make, arrays=tiny.seen(1, 39), **options)


def test_guards_change_what_the_encoder_sees():
    images = np.random.default_rng(4).random((B, 48, 48, 3)).astype(np.float32)
    run = RUN._replace(seen=tiny.seen(1, 48))
    features = {}
    for colour, downsample in (("keep", 0.0), ("drop", 0.0), ("project", 0.0), ("keep", 1.0)):
        options = {"tile_size": 12, "jitter": 2, "colour": colour, "downsample": downsample}
        method = relative_position.make(tiny.Encoder(), run, hidden_dim=8, **options)
        params, extra = method.init(jax.random.key(1), batch_of(images))
        outputs, _ = method.encode(params, extra, batch_of(images), KEY)
        features[colour, downsample] = np.asarray(outputs["features"])
        assert np.isfinite(features[colour, downsample]).all()
    reference = features.pop(("keep", 0))
    for changed in features.values():
        assert np.abs(changed - reference).max() > 1e-3
