"""Context encoder: holes are hidden, losses equal their formulas, and each network's gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from ssl_jax import testing
from ssl_jax.methods import Run, _holes, context_encoder
from ssl_jax.models.dbn import DBN
from ssl_jax.models.resnet import BasicBlock, ResNet
from ssl_jax.models.vit import ViT

B, SIZE = 6, 16
KEY = jax.random.key(5)
ZERO = jnp.zeros((), jnp.int32)
SMALL = {"bottleneck_dim": 8, "decoder_width": 4, "discriminator_width": 4, "overlap": 1}
MASKS = ("center", "blocks", "free_form")
BOX = np.s_[:, 4:12, 4:12]  # the square of half the side, in the centre


def make(encoder=None, views=1, channels=3, **options):
    run = Run(tiny.seen(views, SIZE, channels), 8, B, num_examples=B)
    return context_encoder.make(encoder or tiny.Encoder(), run, **SMALL | options)


def start(channels=3, **options):
    method = make(channels=channels, **options)
    views = np.random.default_rng(2).random((B, 1, SIZE, SIZE, channels), np.float32)
    batch = {"views": jnp.asarray(views), "index": jnp.arange(B, dtype=jnp.int32)}
    return method, *jax.jit(method.init)(jax.random.key(1), batch), batch


def holes(mask):
    draw = _holes.make(mask, SIZE, area=0.25, overlap=1, blocks=4, cells=8)
    return np.asarray(draw(KEY, jnp.arange(B, dtype=jnp.int32)))


def plain_decoder(params, logit):
    """A decoder that predicts one colour, sigmoid(logit), everywhere."""
    pixels = params["decoder"]["pixels"]
    bias = jnp.asarray(logit, jnp.float32)
    pixels = {"kernel": jnp.zeros_like(pixels["kernel"]), "bias": bias}
    return params | {"decoder": params["decoder"] | {"pixels": pixels}}


@pytest.mark.parametrize("mask", MASKS)
def test_reconstruction_is_the_weighted_error_of_the_hole_and_its_border(mask):
    method, params, extra, batch = start(mask=mask, loss="reconstruction", overlap_weight=7.0)
    colour = np.array([0.2, 0.5, 0.9])
    params = plain_decoder(params, np.log(colour / (1 - colour)))
    outputs, _ = method.encode(params, extra, batch, KEY)
    value, (_, metrics) = method.objective(params, extra, outputs, KEY, ZERO)
    images = np.asarray(batch["views"][:, 0], np.float64)
    values, errors, squares, hidden_means = [], [], [], []
    for image, hole in zip(images, holes(mask)[..., 0], strict=True):
        total = count = 0
        for i, j in np.ndindex(hole.shape):
            around = hole[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].any()
            weight = 1 if hole[i, j] else 7
            # The paper's code works on pixels in [-1, 1].
            error = np.mean(((2 * colour - 1) - (2 * image[i, j] - 1)) ** 2)
            total, count = total + around * weight * error, count + around
        values.append(total / count)
        errors.append(np.mean((image[hole] - colour) ** 2))
        squares.append(np.mean(image[hole] ** 2, 0))
        hidden_means.append(np.mean(image[hole], 0))
    assert float(value) == pytest.approx(np.mean(values), rel=1e-5)
    assert float(metrics["reconstruction_error"]) == pytest.approx(np.mean(errors), rel=1e-5)
    best = np.mean(hidden_means, 0)
    chance = np.mean(np.array(squares) - 2 * best * np.array(hidden_means) + best**2)
    assert float(metrics["reconstruction_chance"]) == pytest.approx(chance, rel=1e-4)
    assert set(metrics) == {"reconstruction_error", "reconstruction_chance"}
    assert "discriminator" not in params


@pytest.mark.parametrize("mask", MASKS)
def test_hidden_pixels_reach_neither_the_code_nor_the_features(mask):
    method, params, extra, batch = start(mask=mask, loss="reconstruction")
    before, stats = method.encode(params, extra, batch, KEY)
    views = np.array(batch["views"])
    views[:, 0][holes(mask)[..., 0]] = 0.123
    after, other = method.encode(params, extra, batch | {"views": jnp.asarray(views)}, KEY)
    np.testing.assert_array_equal(before["features"], after["features"])
    for x, y in zip(jax.tree.leaves(stats), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)
    assert np.all(np.abs(before["error"] - after["error"]) > 1e-4)


def test_a_visible_pixel_of_the_overlap_reaches_the_code():
    method, params, extra, batch = start()
    views = np.array(batch["views"])
    views[:, 0, 4, 4:12] = 0.9  # the first row of the predicted square
    outputs = [
        method.encode(params, extra, batch | {"views": jnp.asarray(v)}, KEY)[0]["features"]
        for v in (batch["views"], views)
    ]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


@jax.jit
def gradients(params, extra, batch, weight):
    method = make(reconstruction_weight=0.5)

    def loss(params):
        outputs, _ = method.encode(params, extra, batch, KEY)
        outputs = outputs | {"loss": weight * outputs["loss"]}
        return method.objective(params, extra, outputs, KEY, ZERO)[0]

    return jax.grad(loss)(params)


def norm_of_change(a, b):
    change = optax.tree.norm(jax.tree.map(jnp.subtract, a, b))
    return float(change / (optax.tree.norm(b) + 1e-9))


def test_discriminator_learns_from_its_own_loss_and_the_generator_from_the_others():
    _, params, extra, batch = start()
    plain = gradients(params, extra, batch, 0.0)
    both = gradients(params, extra, batch, 1.0)
    assert norm_of_change(both["discriminator"], plain["discriminator"]) < 1e-5
    for name in ("encoder", "bottleneck", "decoder"):
        assert float(optax.tree.norm(plain[name])) > 1e-7, name  # the adversary's
        assert norm_of_change(both[name], plain[name]) > 0.1, name
    # The discriminator's gradient is that of half the cross-entropies, with fixed images.
    method = make(reconstruction_weight=0.5)
    outputs, _ = method.encode(params, extra, batch, KEY)

    def cross_entropy(discriminator):
        new, _ = method.encode(params | {"discriminator": discriminator}, extra, batch, KEY)
        losses = jnp.log1p(jnp.exp(-new["real"])), jnp.log1p(jnp.exp(new["filled"]))
        return (losses[0].mean() + losses[1].mean()) / 2

    want = jax.grad(cross_entropy)(params["discriminator"])
    assert norm_of_change(plain["discriminator"], want) < 1e-4
    np.testing.assert_allclose(outputs["fool"], outputs["filled"], rtol=1e-6)


@pytest.mark.parametrize("mask", ["center", "blocks"])
def test_discriminator_sees_the_prediction_in_its_place(mask):
    """A discriminator whose logit is a mean of pixels, up to rounding."""
    method, params, extra, batch = start(mask=mask, loss="adversarial")
    params = plain_decoder(params, np.zeros(3))  # predicts 0.5, which is 0 in [-1, 1]
    layers = params["discriminator"]
    side = 8 if mask == "center" else SIZE
    kernels = {name: np.zeros(layer["kernel"].shape) for name, layer in layers.items()
               if "kernel" in layer}  # fmt: skip
    if mask == "center":
        assert kernels.keys() == {"conv0", "logit"}
        kernels["conv0"][1:3, 1:3, :, 0] = 1  # each output sums its own 2 x 2 pixels
        kernels["logit"] = np.arange(16.0)[:, None].repeat(4, 1).reshape(-1, 1)
        changed = layers | {
            name: {"kernel": jnp.asarray(k, jnp.float32)} for name, k in kernels.items()
        }
        outputs, _ = method.encode(params | {"discriminator": changed}, extra, batch, KEY)
        pixels = 2 * np.asarray(batch["views"][:, 0][BOX], np.float64).sum(-1) - 3
        sums = pixels.reshape(B, 4, 2, 4, 2).sum((2, 4)).reshape(B, 16)
        want = np.where(sums > 0, sums, 0.2 * sums) @ np.arange(16.0)
        np.testing.assert_allclose(outputs["real"], want, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(outputs["filled"], 0, atol=1e-4)
    else:
        assert kernels["conv0"].shape[:2] == (4, 4)
        assert side == SIZE
        views = np.array(batch["views"])
        shown = np.asarray(_holes.border(jnp.asarray(holes(mask)), 1)) | holes(mask)
        views[:, 0][shown[..., 0]] = 0.5
        again, _ = method.encode(params, extra, batch | {"views": jnp.asarray(views)}, KEY)
        np.testing.assert_allclose(again["real"], again["filled"], rtol=1e-5, atol=1e-6)
        first, _ = method.encode(params, extra, batch, KEY)
        assert np.abs(first["real"] - first["filled"]).max() > 1e-4


def test_losses_combine_as_stated():
    values = {}
    for name in ("both", "reconstruction", "adversarial"):
        method, params, extra, batch = start(loss=name, reconstruction_weight=0.8)
        outputs, _ = method.encode(params, extra, batch, KEY)
        value, (_, metrics) = method.objective(params, extra, outputs, KEY, ZERO)
        values[name] = float(value), {k: float(v) for k, v in metrics.items()}
    value, metrics = values["both"]
    pixel_loss, _ = values["reconstruction"]
    adversarial = metrics["adversarial_loss"], metrics["discriminator_loss"]
    assert value == pytest.approx(0.8 * pixel_loss + 0.2 * adversarial[0] + adversarial[1])
    other = values["adversarial"]
    assert other[0] == pytest.approx(adversarial[0] + adversarial[1], rel=1e-6)
    assert 0 <= metrics["discriminator_accuracy"] <= 1


@pytest.mark.parametrize("mask", MASKS)
def test_picture_shows_original_hole_and_filled_hole(mask):
    method, params, extra, batch = start(mask=mask, loss="reconstruction")
    params = plain_decoder(params, np.full(3, 1.0))
    images, (picture,) = batch["views"][:, 0], method.pictures
    drawn = np.asarray(jax.jit(picture.draw)(params, extra, images, KEY))
    assert drawn.shape == (B, 3, SIZE, SIZE, 3)
    hole = holes(mask)
    np.testing.assert_array_equal(drawn[:, 0], images)
    np.testing.assert_allclose(drawn[:, 1], np.where(hole, 0.5, images), atol=1e-6)
    want = np.where(hole, 1 / (1 + np.exp(-1)), images)
    np.testing.assert_allclose(drawn[:, 2], want, atol=1e-6)


def test_holes_have_the_encoders_mean_colour():
    mean, std = (0.1, 0.6, 0.3), (0.2, 0.2, 0.2)
    encoder = ResNet(BasicBlock, (1, 1), width=0.06, stem="cifar", mean=mean, std=std)
    method, params, extra, batch = start(encoder=encoder)
    drawn = method.pictures[0].draw(params, extra, batch["views"][:, 0], KEY)
    np.testing.assert_allclose(drawn[0, 1, 8, 8], mean, atol=1e-6)


def test_reconstruction_learns_to_continue_stripes():
    """Horizontal stripes: the hole's rows can be read off beside it."""
    method, params, extra, _ = start(loss="reconstruction", bottleneck_dim=32)
    tx = optax.adam(0.01)

    @jax.jit
    def descend(params, extra, state, key):
        stripes = jax.random.bernoulli(key, 0.5, (32, 1, 4, 1, 3)).astype(jnp.float32)
        views = jnp.broadcast_to(stripes.repeat(4, 2), (32, 1, SIZE, SIZE, 3))
        batch = {"views": views, "index": jnp.arange(32, dtype=jnp.int32)}

        def loss(params):
            outputs, stats = method.encode(params, extra, batch, key)
            value, (_, metrics) = method.objective(params, extra, outputs, key, ZERO)
            return value, (stats, metrics)

        gradient, (stats, metrics) = jax.grad(loss, has_aux=True)(params)
        updates, state = tx.update(gradient, state)
        return optax.apply_updates(params, updates), {"batch_stats": stats}, state, metrics

    state = tx.init(params)
    for key in jax.random.split(KEY, 150):
        params, extra, state, metrics = descend(params, extra, state, key)
    assert metrics["reconstruction_error"] < 0.3 * metrics["reconstruction_chance"]


@pytest.mark.parametrize("options", [{"mask": "blocks"}, {"loss": "reconstruction"}])
def test_the_contract_holds_for_other_masks_and_losses(options):
    testing.check_method(
        context_encoder.make, arrays=tiny.seen(1, 8, 1), **SMALL | {"cells": 4} | options
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 2}, r"set augment\.views to 1"),
        ({"encoder": ViT(patch_size=4, pool="mean")}, "needs a ResNet, not ViT"),
        ({"encoder": DBN(widths=(8,))}, "needs a ResNet, not DBN"),
        ({"loss": "l1"}, "unknown loss 'l1'; choose one of: both, reconstruction, adversarial"),
        ({"mask": "square"}, "unknown mask 'square'"),
        ({"hole_area": 1.0}, r"hole_area must be a fraction .* got 1.0"),
        ({"overlap": 4}, "overlap of 4 pixels .* a hole of 8 x 8 pixels"),
        ({"overlap": -1}, "overlap must be at least 0, got -1"),
        ({"overlap_weight": 0.0}, "overlap_weight must be positive, got 0.0"),
        ({"reconstruction_weight": 1.0}, r"reconstruction_weight must be in \(0, 1\), got 1.0"),
    ],
)
def test_invalid_settings_raise(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
