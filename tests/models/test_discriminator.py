"""The discriminator's layers, and its logits against convolutions written as loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.discriminator import Discriminator


def shapes(size, channels, width):
    images = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    model = Discriminator(width, dtype=jnp.bfloat16)
    logits, variables = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, True), images
    )
    assert (logits.shape, logits.dtype) == ((2, 1), jnp.float32)
    params = variables["params"]
    assert all(layer.keys() <= {"kernel", "scale", "bias"} for layer in params.values())
    assert {name for name in params if "bias" in params[name]} == {
        name for name in params if name.startswith("bn")
    }
    return {name: layer["kernel"].shape for name, layer in params.items() if "kernel" in layer}


def test_layers_for_64_pixels_are_those_of_dcgan():
    assert shapes(64, 3, 64) == {
        "conv0": (4, 4, 3, 64),
        "conv1": (4, 4, 64, 128),
        "conv2": (4, 4, 128, 256),
        "conv3": (4, 4, 256, 512),
        "logit": (4 * 4 * 512, 1),
    }


def test_a_single_pixel_is_refused():
    with pytest.raises(ValueError, match="at least 2 pixels a side, got 1"):
        shapes(1, 1, 4)


@pytest.mark.parametrize(("size", "convolutions", "last"), [(3, 1, 1), (9, 1, 4), (11, 2, 2)])
def test_small_and_odd_sides(size, convolutions, last):
    kernels = shapes(size, 1, 4)
    assert len(kernels) == convolutions + 1
    assert kernels["logit"][0] == last**2 * kernels[f"conv{convolutions - 1}"][-1]


def convolve(x, kernel):
    """4 x 4 convolution of stride 2 with a border of one zero pixel, one position at a time."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    side = (x.shape[1] - 4) // 2 + 1
    out = np.zeros((len(x), side, side, kernel.shape[-1]))
    for i in range(side):
        for j in range(side):
            patch = x[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
            out[:, i, j] = np.einsum("nhwc,hwcd->nd", patch, kernel)
    return out


def test_logits_equal_the_layers_written_as_loops():
    x = np.random.default_rng(0).normal(size=(6, 10, 10, 2))
    model = Discriminator(3)
    variables = model.init(jax.random.key(1), jnp.asarray(x, jnp.float32), True)
    params = jax.tree.map(lambda p: 10 * p, variables["params"])
    logits, _ = model.apply(
        variables | {"params": params}, jnp.asarray(x, jnp.float32), True, mutable=["batch_stats"]
    )

    def leaky(x):
        return np.where(x > 0, x, 0.2 * x)

    weights = jax.tree.map(np.float64, params)
    y = leaky(convolve(x, weights["conv0"]["kernel"]))
    y = convolve(y, weights["conv1"]["kernel"])
    y = (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-5)
    y = leaky(y * weights["bn1"]["scale"] + weights["bn1"]["bias"])
    want = y.reshape(6, -1) @ weights["logit"]["kernel"]
    np.testing.assert_allclose(logits, want, rtol=1e-4, atol=1e-4)
