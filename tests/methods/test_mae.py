"""MAE encodes the visible patches only, and its loss covers the masked patches only."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from ssl_jax.methods import Run, mae
from ssl_jax.models.vit import ViT

B, SIZE, PATCH = 6, 16, 4
RUN = Run(tiny.seen(1, SIZE), 8, B, num_examples=B)
KEY = jax.random.key(5)


MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)


def make(standardised=False, **options):
    statistics = {"mean": MEAN, "std": STD} if standardised else {}
    encoder = ViT(patch_size=PATCH, width=8, depth=1, heads=2, pool="mean", **statistics)
    options = {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2} | options
    method = mae.make(encoder, RUN, **options)
    views = np.random.default_rng(2).random((B, 1, SIZE, SIZE, 3), np.float32)
    batch = {"views": jnp.asarray(views), "index": jnp.arange(B, dtype=jnp.int32)}
    params, extra = method.init(jax.random.key(1), batch)
    return method, params, extra, batch


def patches(images):
    """Cuts images [b, 16, 16, 3] into patches [b, 16, 48], by loops."""
    result = np.zeros((len(images), 16, 48))
    for i in range(4):
        for j in range(4):
            cut = images[:, PATCH * i : PATCH * (i + 1), PATCH * j : PATCH * (j + 1)]
            result[:, 4 * i + j] = cut.reshape(len(images), -1)
    return result


def orders(batch):
    """Order of the patches drawn for every image; the first 4 of 16 are visible."""
    return [jax.random.permutation(jax.random.fold_in(KEY, i), 16) for i in batch["index"]]


@pytest.mark.parametrize("standardised", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_loss_covers_masked_patches_only(normalize, standardised):
    method, params, extra, batch = make(standardised, normalize_pixels=normalize)
    params["decoder"]["pixels"] = jax.tree.map(jnp.zeros_like, params["decoder"]["pixels"])
    outputs, _ = method.encode(params, extra, batch, KEY)
    images = np.asarray(batch["views"][:, 0], np.float64)
    x = patches((images - MEAN) / STD if standardised else images)
    if normalize:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True, ddof=1) + 1e-6)
    want = [
        np.square(row[np.asarray(order[4:])]).mean()
        for row, order in zip(x, orders(batch), strict=True)
    ]
    np.testing.assert_allclose(outputs["error"], want, rtol=1e-5)
    loss, _ = method.objective(params, extra, outputs, KEY, jnp.zeros((), jnp.int32))
    np.testing.assert_allclose(loss, np.mean(want), rtol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_pictures_show_pixels_of_the_original_scale(normalize):
    """A decoder that predicts zeros predicts the mean: of the data set, or of the patch."""
    method, params, extra, batch = make(standardised=True, normalize_pixels=normalize)
    params["decoder"]["pixels"] = jax.tree.map(jnp.zeros_like, params["decoder"]["pixels"])
    images = batch["views"][:, 0]
    drawn = np.asarray(method.pictures[0].draw(params, extra, images, KEY))
    np.testing.assert_allclose(drawn[:, 0], images, atol=1e-6)
    x = (patches(np.asarray(images, np.float64)) - np.tile(MEAN, 16)) / np.tile(STD, 16)
    zero = x.mean(-1, keepdims=True) if normalize else np.zeros((B, 16, 1))
    want = (zero * np.tile(STD, 16) + np.tile(MEAN, 16)).clip(0, 1)
    for row, wanted, order in zip(patches(drawn[:, 2]), want, orders(batch), strict=True):
        hidden = np.asarray(order[4:])
        np.testing.assert_allclose(row[hidden], wanted[hidden], atol=1e-5)


def test_masked_pixels_change_the_loss_but_not_the_features():
    method, params, extra, batch = make()
    before, _ = method.encode(params, extra, batch, KEY)
    views = np.array(batch["views"])
    for i, order in enumerate(orders(batch)):
        for patch in np.asarray(order[4:]):
            row, column = PATCH * (patch // 4), PATCH * (patch % 4)
            views[i, 0, row : row + PATCH, column : column + PATCH] = np.random.default_rng(
                int(patch)
            ).random((PATCH, PATCH, 3))
    after, _ = method.encode(params, extra, batch | {"views": jnp.asarray(views)}, KEY)
    np.testing.assert_array_equal(before["features"], after["features"])
    assert np.all(np.abs(before["error"] - after["error"]) > 1e-4)


def test_mask_depends_on_the_example_not_on_its_row():
    method, params, extra, batch = make()
    whole, _ = method.encode(params, extra, batch, KEY)
    reversed_batch = {name: x[::-1] for name, x in batch.items()}
    other, _ = method.encode(params, extra, reversed_batch, KEY)
    np.testing.assert_allclose(other["error"][::-1], whole["error"], rtol=1e-5)
    again, _ = method.encode(params, extra, batch, jax.random.key(6))
    assert np.abs(again["error"] - whole["error"]).max() > 1e-4


def test_pixels_are_predicted_at_their_positions():
    """After overfitting one image of 16 plain patches, the model predicts it under unseen masks."""
    method, params, extra, batch = make(decoder_dim=16, normalize_pixels=False)
    shades = np.random.default_rng(4).random((1, 1, 4, 4, 3))
    image = jnp.asarray(shades.repeat(PATCH, 2).repeat(PATCH, 3), jnp.float32)
    one = {"views": image, "index": batch["index"][:1]}
    tx = optax.adam(0.02)

    @jax.jit
    def descend(params, state, step):
        def loss(p):
            outputs, _ = method.encode(p, extra, one, jax.random.fold_in(KEY, step))
            return outputs["error"].mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    state, losses = tx.init(params), []
    for step in range(400):
        params, state, value = descend(params, state, step)
        losses.append(float(value))
    assert np.mean(losses[-5:]) < 0.25 * np.var(image)


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        (tiny.Encoder(), {}, "needs a ViT"),
        (ViT(patch_size=8), {"mask_ratio": 0.95}, "leaves 0 of 4 patches"),
    ],
)
def test_invalid_encoder_or_mask_raises(encoder, options, message):
    with pytest.raises(ValueError, match=message):
        mae.make(encoder, RUN, **options)


def test_two_views_raise():
    with pytest.raises(ValueError, match=r"set augment\.views to 1"):
        mae.make(ViT(patch_size=4), RUN._replace(seen=tiny.seen(2, SIZE)))
