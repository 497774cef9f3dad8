"""Variational autoencoder: the bound against NumPy, its gradient, features, and pictures."""

import jax
import jax.numpy as jnp
import linear
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tiny

from ssl_jax.methods import Run, vae
from ssl_jax.methods._frozen import FrozenNetwork
from ssl_jax.models.decoder import Decoder

B, SIZE, LATENT = 8, 4, 6
SIGMOID = scipy.special.expit


def make(*, views=1, dtype=jnp.float64, **options):
    run = Run(tiny.seen(views, SIZE), 4, B, num_examples=B)
    options = {"latent_dim": LATENT, "decoder_width": 4} | options
    return vae.make(linear.Linear(dtype), run, **options)


def to_float64(tree):
    return jax.tree.map(
        lambda x: x.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def start(method):
    (batch,) = linear.batches(1, B, views=1, size=SIZE)
    batch = to_float64(batch)
    batch["views"] = SIGMOID(batch["views"])
    params, extra = to_float64(method.init(jax.random.key(1), batch))
    return params, extra, batch


def evaluate(method, params, extra, batch):
    outputs, stats = method.encode(params, extra, batch, jax.random.key(3))
    loss, (_, metrics) = method.objective(params, extra, outputs, jax.random.key(4), jnp.int32(0))
    return loss, (outputs, metrics, stats)


def posterior(params, images):
    """Returns features, mean and log-variance of each image, in NumPy."""
    params = jax.device_get(params)
    features = images.reshape(len(images), -1) @ params["encoder"]["dense"]["kernel"]
    layer = params["posterior"]["dense0"]
    both = features @ layer["kernel"] + layer["bias"]
    return features, both[:, :LATENT], both[:, LATENT:]


def drawn_images(params, extra, mean, log_variance, index):
    """Returns the decoder's probabilities for the draws that `encode` makes."""
    keys = [jax.random.fold_in(jax.random.key(3), i) for i in index]
    normal = np.stack([jax.random.normal(k, (LATENT,), jnp.float64) for k in keys])
    code = mean + np.exp(log_variance / 2) * normal
    variables = {
        "params": params["decoder"], "batch_stats": extra["batch_stats"]["decoder"],
    }  # fmt: skip
    decoder = Decoder(SIZE, 4, 3, dtype=jnp.float64)
    return np.asarray(decoder.apply(variables, code, True, mutable=["batch_stats"])[0])


@pytest.mark.parametrize(
    ("likelihood", "beta", "free_nats", "free_group"),
    [("gaussian", 1.0, 0.0, 1), ("bernoulli", 4.0, 0.0, 1), ("gaussian", 0.5, 0.1, 2)],
)
def test_loss_is_the_negative_bound(likelihood, beta, free_nats, free_group):
    with jax.enable_x64(True):
        method = make(
            likelihood=likelihood, beta=beta, free_nats=free_nats, free_group=free_group, sigma=0.3
        )
        params, extra, batch = start(method)
        loss, (outputs, metrics, _) = evaluate(method, params, extra, batch)
        images = batch["views"][:, 0]
        features, mean, log_variance = posterior(params, images)
        p = drawn_images(params, extra, mean, log_variance, batch["index"])
    if likelihood == "gaussian":
        log_likelihood = scipy.stats.norm(p, 0.3).logpdf(images).sum((1, 2, 3))
    else:
        log_likelihood = (images * np.log(p) + (1 - images) * np.log(1 - p)).sum((1, 2, 3))
    kl = (mean**2 + np.exp(log_variance) - 1 - log_variance) / 2
    groups = kl.mean(0).reshape(-1, free_group).sum(1)
    if free_nats:  # the limit holds for some groups only
        assert (groups < free_nats).any()
        assert (groups > free_nats).any()
    want = -log_likelihood.mean() + beta * np.maximum(groups, free_nats).sum()
    np.testing.assert_allclose(loss, want, rtol=1e-9)
    np.testing.assert_allclose(metrics["kl"], kl.sum(1).mean(), rtol=1e-9)
    np.testing.assert_allclose(metrics["reconstruction_loss"], -log_likelihood.mean(), rtol=1e-9)
    np.testing.assert_allclose(metrics["reconstruction_error"], np.square(images - p).mean())
    np.testing.assert_allclose(metrics["reconstruction_chance"], images.var(0).mean())
    np.testing.assert_allclose(outputs["features"][:, 0], features)
    assert metrics["active_dimensions"] == (mean.var(0) > 0.01).sum()


def test_gradient_is_that_of_finite_differences():
    """The draw moves with mean and variance, so all parts of the network learn from it."""
    with jax.enable_x64(True):
        method = make(sigma=0.3)
        params, extra, batch = start(method)
        rng = np.random.default_rng(0)
        direction = jax.tree.map(lambda x: rng.standard_normal(x.shape), params)

        def along(t):
            moved = jax.tree.map(lambda x, d: x + t * d, params, direction)
            return evaluate(method, moved, extra, batch)[0]

        slope, h = jax.grad(along)(0.0), 1e-6
        want = (along(h) - along(-h)) / (2 * h)
    np.testing.assert_allclose(slope, want, rtol=1e-5)


def frozen():
    """A network with two blocks: the image halved, and the mean of its channels."""
    return FrozenNetwork(
        {"scale": np.float32(0.5)},
        lambda weights, images: [weights["scale"] * images, images.mean(-1)],
    )


def test_features_of_a_frozen_network_replace_the_pixels():
    with jax.enable_x64(True):
        method = make(features_from=frozen(), sigma=0.3)
        params, extra, batch = start(method)
        assert extra["frozen"]["scale"] == 0.5
        (loss, (_, metrics, stats)), grads = jax.value_and_grad(
            lambda p: evaluate(method, p, extra, batch), has_aux=True
        )(params)
        images = batch["views"][:, 0]
        _, mean, log_variance = posterior(params, images)
        p = drawn_images(params, extra, mean, log_variance, batch["index"])
        after = method.after_update(params, extra, stats, jnp.int32(0))
    errors = (
        np.square((images - p) / 2).mean((1, 2, 3)),
        np.square((images - p).mean(-1)).mean((1, 2)),
    )
    pixels = 3 * SIZE**2
    cost = pixels * (np.mean(errors) / (2 * 0.3**2) + np.log(2 * np.pi * 0.3**2) / 2)
    np.testing.assert_allclose(metrics["reconstruction_loss"], cost, rtol=1e-9)
    np.testing.assert_allclose(loss, cost + float(metrics["kl"]), rtol=1e-9)
    assert all(np.asarray(g).any() for g in jax.tree.leaves(grads["decoder"]))
    assert after["frozen"] is extra["frozen"]
    assert set(method.modules(params, extra)[0]) == {"encoder", "posterior", "decoder"}


def test_pictures_decode_codes_of_images_and_of_the_prior():
    method = make(dtype=jnp.float32)
    (batch,) = linear.batches(1, B, views=1, size=SIZE)
    batch["views"] = SIGMOID(batch["views"])
    params, extra = method.init(jax.random.key(1), batch)
    images = jnp.asarray(batch["views"][:4, 0], jnp.float32)
    grids = {
        one.name: np.asarray(jax.jit(one.draw)(params, extra, images, jax.random.key(5)))
        for one in method.pictures
    }
    assert list(grids) == ["reconstructions", "samples", "interpolations"]
    _, mean, _ = posterior(params, np.asarray(images))
    variables = {"params": params["decoder"], "batch_stats": extra["batch_stats"]["decoder"]}

    def decode(codes):
        return Decoder(SIZE, 4, 3).apply(variables, jnp.asarray(codes), False)

    drawn = decode(mean)
    np.testing.assert_allclose(grids["reconstructions"][:, 0], images)
    np.testing.assert_allclose(grids["reconstructions"][:, 1], drawn, atol=1e-5)
    assert grids["samples"].shape == (5, 10, SIZE, SIZE, 3)
    codes = np.asarray(jax.random.normal(jax.random.key(5), (5, 10, LATENT)))
    np.testing.assert_allclose(grids["samples"][2], decode(codes[2]), atol=1e-5)
    lines = grids["interpolations"]
    assert lines.shape == (2, 10, SIZE, SIZE, 3)
    np.testing.assert_allclose(lines[:, 0], drawn[:2], atol=1e-5)
    np.testing.assert_allclose(lines[:, -1], drawn[2:], atol=1e-5)
    third = decode((2 / 3 * mean[1] + 1 / 3 * mean[3])[None])
    np.testing.assert_allclose(lines[1, 3], third[0], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 2}, "1 view"),
        ({"likelihood": "laplace"}, "likelihood must be one of gaussian, bernoulli"),
        ({"sigma": 0.0}, "sigma must be a finite number above 0"),
        ({"beta": -1.0}, "beta and free_nats must be finite and at least 0"),
        ({"free_nats": float("nan")}, "beta and free_nats must be finite"),
        ({"free_group": 4}, "got 4 for 6 dimensions"),
        ({"latent_dim": 0}, "got 1 for 0 dimensions"),
        ({"features_from": frozen(), "likelihood": "bernoulli"}, "needs likelihood='gaussian'"),
    ],
)
def test_invalid_settings_raise(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
