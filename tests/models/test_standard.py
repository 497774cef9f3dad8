"""Encoder options for weights from other code; their defaults change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models

MEAN, STD = (0.25, 0.5, 0.75), (0.5, 0.25, 0.125)
DEFAULTS = {
    "resnet10": {"padding": "torch", "mean": (0.0,) * 3, "std": (1.0,) * 3},
    "vit_micro": {"positions": "sincos", "mean": (0.0,) * 3, "std": (1.0,) * 3},
}
SMALL = {"resnet10": {"width": 0.125}, "vit_micro": {"patch_size": 16}}


def variables(module, images):
    return jax.jit(lambda x: module.init(jax.random.key(0), x, False))(images)


@pytest.mark.parametrize("name", SMALL)
def test_mean_and_std_standardise_the_images(name):
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 32, 32, 3)), jnp.float32)
    plain = models.get(name, **SMALL[name])
    weights = variables(plain, images)
    assert plain == models.get(name, **SMALL[name], **DEFAULTS[name])
    with_statistics = models.get(name, **SMALL[name], mean=MEAN, std=STD)
    assert jax.tree.structure(variables(with_statistics, images)) == jax.tree.structure(weights)
    standardised = (np.asarray(images, np.float64) - np.array(MEAN)) / np.array(STD)
    want = plain.apply(weights, jnp.asarray(standardised, jnp.float32), False)
    np.testing.assert_allclose(
        with_statistics.apply(weights, images, False), want, rtol=1e-4, atol=1e-6
    )
    assert not np.allclose(plain.apply(weights, images, False), want, rtol=0.1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet10", {"std": (1.0, 0.0, 1.0)}),
        ("resnet10", {"mean": (0.5,)}),
        ("vit_micro", {"std": (1.0, 1.0, -1.0)}),
        ("resnet10", {"padding": "valid"}),
        ("resnet50", {"padding": "same", "sk_ratio": 0.0625}),
        ("vit_micro", {"positions": "fixed"}),
    ],
)
def test_invalid_options_raise(name, options):
    module = models.get(name, **options)
    with pytest.raises(ValueError, match=r"std|padding|positions"):
        variables(module, jnp.ones((1, 32, 32, 3)))


def test_learned_positions_reach_every_token():
    images = jnp.zeros((1, 32, 32, 3))
    module = models.get("vit_micro", positions="learned")
    weights = variables(module, images)
    assert weights["params"]["pos_embed"].shape == (5, 64)
    assert 0.015 < np.std(weights["params"]["pos_embed"]) < 0.025
    tokens = lambda w: module.apply(w, images, False, method="tokens")  # noqa: E731
    for row in range(5):
        # Only every second feature moves, because LayerNorm removes a shift of all.
        table = weights["params"]["pos_embed"].at[row, ::2].add(1.0)
        moved = {"params": {**weights["params"], "pos_embed": table}}
        assert not np.allclose(tokens(moved), tokens(weights), atol=1e-3)
