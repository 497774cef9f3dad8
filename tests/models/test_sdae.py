"""Layers of stacked autoencoders against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.special

from ssl_jax.models import layers, sdae

RNG = np.random.default_rng(0)


def weights(*shape):
    return {"kernel": RNG.standard_normal(shape), "bias": RNG.standard_normal(shape[-1])}


def test_dense_layer_and_its_transpose():
    layer, x, below = weights(6, 4), RNG.random((3, 6)), RNG.standard_normal(6)
    with jax.enable_x64(True):
        code = sdae.encode(layer, jnp.asarray(x), jnp.float64)
        decoder = layer | {"bias": below}
        logits = sdae.decode(decoder, code, x.shape, jnp.float64)
    want = scipy.special.expit(x @ layer["kernel"] + layer["bias"])
    np.testing.assert_allclose(code, want, rtol=1e-12)
    np.testing.assert_allclose(logits, want @ layer["kernel"].T + below, rtol=1e-12)


@pytest.mark.parametrize(("h", "w"), [(6, 8), (5, 7)])
def test_convolutional_layer_and_its_mirrored_kernel(h, w):
    c, f = 3, 2
    layer, x, below = weights(5, 5, c, f), RNG.random((2, h, w, c)), RNG.standard_normal(c)
    with jax.enable_x64(True):
        code = np.asarray(sdae.encode(layer, jnp.asarray(x), jnp.float64))
        decoder = layer | {"bias": below}
        logits = np.asarray(sdae.decode(decoder, jnp.asarray(code), x.shape, jnp.float64))
    for i in range(len(x)):
        for k in range(f):
            parts = [
                scipy.signal.correlate2d(x[i, ..., j], layer["kernel"][..., j, k], "same")
                for j in range(c)
            ]
            response = scipy.special.expit(sum(parts) + layer["bias"][k])
            wide = np.full((h + h % 2, w + w % 2), -np.inf)
            wide[:h, :w] = response
            pooled = wide.reshape(-(-h // 2), 2, -(-w // 2), 2).max((1, 3))
            np.testing.assert_allclose(code[i, ..., k], pooled, rtol=1e-10)
        doubled = code[i].repeat(2, 0).repeat(2, 1)[:h, :w]
        for j in range(c):  # convolution mirrors the kernel, correlation does not
            parts = [
                scipy.signal.convolve2d(doubled[..., k], layer["kernel"][..., j, k], "same")
                for k in range(f)
            ]
            np.testing.assert_allclose(logits[i, ..., j], sum(parts) + below[j], rtol=1e-10)


@pytest.mark.parametrize(("kind", "features"), [("dense", 4), ("convolutional", 2 * 3 * 4)])
def test_features_are_the_flat_code_of_the_top_layer(kind, features):
    images = jnp.asarray(RNG.random((3, 8, 10, 3)), jnp.float32)
    encoder = sdae.SDAE((5, 4), kind)
    variables = encoder.init(jax.random.key(0), images, True)
    got = encoder.apply(variables, images, False)
    assert got.shape == (3, features)
    x = sdae.layer_input(images, kind)
    for name in ("layer0", "layer1"):
        x = sdae.encode(variables["params"][name], x, jnp.float32)
    np.testing.assert_array_equal(got, x.reshape(3, -1))
    outputs = layers.outputs(encoder, variables, images)
    assert layers.order(list(outputs)) == ["layer0", "layer1", "features"]
    assert {name: x.shape for name, x in outputs.items()} == {
        "layer0": (3, 5), "layer1": (3, 4), "features": (3, features),
    }  # fmt: skip


def test_activations_are_those_of_the_blocks_before_pooling():
    images = jnp.asarray(RNG.random((3, 8, 8, 3)), jnp.float32)
    encoder = sdae.SDAE((5, 4), "convolutional")
    variables = encoder.init(jax.random.key(0), images, True)
    blocks, features = layers.activations(encoder, variables, images)
    assert {name: x.shape for name, x in blocks.items()} == {
        "layer0": (3, 4, 4, 5), "layer1": (3, 2, 2, 4),
    }  # fmt: skip
    np.testing.assert_array_equal(blocks["layer1"].reshape(3, -1), features)


def test_half_precision_gives_codes_and_logits_in_float32():
    layer = weights(5, 5, 3, 2)
    code = sdae.encode(layer, jnp.ones((1, 4, 4, 3)), jnp.bfloat16)
    logits = sdae.decode(layer | {"bias": np.zeros(3)}, code, (1, 4, 4, 3), jnp.bfloat16)
    assert code.dtype == logits.dtype == jnp.float32


@pytest.mark.parametrize("options", [{"widths": ()}, {"kind": "sparse"}])
def test_invalid_options_raise(options):
    with pytest.raises(ValueError, match="widths must not be empty and kind must be one of"):
        sdae.SDAE(**options).init(jax.random.key(0), jnp.zeros((2, 8, 8, 3)), True)
