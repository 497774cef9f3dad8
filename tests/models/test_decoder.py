"""The decoder makes images of any size, overfits images, and stays small at small sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax.models.decoder import Decoder

CODES = jnp.asarray(np.random.default_rng(0).normal(size=(8, 6)), jnp.float32)


@pytest.mark.parametrize("size", [1, 7, 8, 24, 33])
def test_images_have_the_requested_size_and_range(size):
    images, _ = Decoder(size, width=4).init_with_output(jax.random.key(0), 30 * CODES, True)
    assert (images.shape, images.dtype) == ((8, size, size, 3), jnp.float32)
    assert 0 <= images.min() < 0.5 < images.max() <= 1


def test_logits_are_those_of_the_pixels():
    variables = Decoder(8, width=4).init(jax.random.key(0), CODES, True)
    images, logits = (Decoder(8, width=4, logits=x).apply(variables, CODES, False) for x in (0, 1))
    np.testing.assert_allclose(images, 1 / (1 + np.exp(-logits)), rtol=1e-6)


def test_layer_widths():
    def kernels(size, width):
        decoder = Decoder(size, width, dtype=jnp.bfloat16)
        images, variables = jax.eval_shape(
            lambda: decoder.init_with_output(jax.random.key(0), CODES, True)
        )
        assert images.dtype == jnp.float32
        layers = variables["params"].items()
        return {name: layer["kernel"].shape for name, layer in layers if "kernel" in layer}

    assert kernels(24, 16) == {
        "dense": (6, 6 * 6 * 64),
        "conv1": (3, 3, 64, 32),
        "conv2": (3, 3, 32, 16),
        "pixels": (3, 3, 16, 3),
    }
    assert kernels(224, 64)["dense"] == (6, 7 * 7 * 512)
    assert kernels(224, 64)["conv5"] == (3, 3, 128, 64)


def test_decoder_overfits_images():
    shades = np.random.default_rng(1).random((8, 3, 3, 3))
    images = jnp.asarray(shades.repeat(4, 1).repeat(4, 2), jnp.float32)
    decoder, tx = Decoder(12, width=8), optax.adam(0.01)
    variables = decoder.init(jax.random.key(0), CODES, True)

    @jax.jit
    def descend(params, state):
        def loss(params):
            updated = {**variables, "params": params}
            decoded, _ = decoder.apply(updated, CODES, True, mutable=["batch_stats"])
            return jnp.square(decoded - images).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    params, state = variables["params"], tx.init(variables["params"])
    for _ in range(100):
        params, state, value = descend(params, state)
    assert value < 0.1 * images.var()
