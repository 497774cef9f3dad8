"""A frozen network from a file of weights: its activations, in a VAE, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights

from configs import vae
from ssl_jax import build, components
from ssl_jax.errors import BAD_CONFIG, MISSING_INPUT, Fault
from ssl_jax.models import layers, resnet
from ssl_jax.pretrained import frozen
from ssl_jax.weights import native

SIZE = 16
OPTIONS = {"width": 0.1, "stem": "cifar"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns (weights, path of their file)."""
    weights = random_weights.make("resnet8", SIZE, **OPTIONS)
    path = tmp_path_factory.mktemp("frozen") / "model.npz"
    np.savez(path, **native.encode(weights))
    return weights, str(path)


def config(path, **method):
    one = vae.get_config("cifar10_cpu")
    one.augment.size = SIZE
    one.method.update(latent_dim=4, decoder_width=4, features_from=path, **method)
    return one


def test_activations_are_the_outputs_of_all_blocks(saved):
    weights, path = saved
    images = np.random.default_rng(0).random((3, SIZE, SIZE, 3)).astype(np.float32)
    network = frozen.load_frozen(path, (SIZE, SIZE, 3), jnp.float32)
    got = network.activations(network.weights, images)
    encoder = resnet.ResNet(resnet.BasicBlock, (1, 1, 1), **OPTIONS)
    variables = {"params": weights.params, "batch_stats": weights.batch_stats}
    want = layers.outputs(encoder, variables, images)
    assert [x.shape[1] for x in got] == [16, 8, 4]
    for i, x in enumerate(got):
        np.testing.assert_allclose(x.mean((1, 2)), want[f"layer{i + 1}_0"], rtol=1e-4, atol=1e-6)


def test_a_config_names_the_network_of_the_vae(saved):
    weights, path = saved
    one = config(path)
    network = build.load_teacher(one)
    method = components.make_method(one, 10, 100, devices=1, teacher=network)
    spec = components.batch_spec(one)
    zeros = jax.tree.map(lambda x: jnp.zeros((2, *x.shape[1:]), x.dtype), spec)
    _, extra = jax.jit(method.init)(jax.random.key(0), zeros)
    jax.tree.map(np.testing.assert_array_equal, extra["frozen"]["params"], weights.params)
    # Without a path, the method gets no network.
    plain = config("")
    assert build.load_teacher(plain) is None
    method = components.make_method(plain, 10, 100, devices=1)
    assert "frozen" not in jax.eval_shape(method.init, jax.random.key(0), zeros)[1]


def test_missing_and_unfit_networks_are_refused(saved, tmp_path):
    with pytest.raises(Fault) as refused:
        build.load_teacher(config(str(tmp_path / "nothing")))
    assert refused.value.code == MISSING_INPUT
    one = config(saved[1])
    one.data.channels = 1
    with pytest.raises(
        Fault, match="does not take images of 16x16 pixels and 1 channels"
    ) as refused:
        build.load_teacher(one)
    assert refused.value.code == BAD_CONFIG
    options = {"norm": "layer", "patch": 8, "patch_stride": 4, **OPTIONS}
    np.savez(
        tmp_path / "patches.npz", **native.encode(random_weights.make("resnet8", 8, **options))
    )
    with pytest.raises(Fault, match="cuts images into patches"):
        build.load_teacher(config(str(tmp_path / "patches.npz")))
    one = config(saved[1], likelihood="bernoulli")
    network = build.load_teacher(one)
    with pytest.raises(Fault, match="needs likelihood='gaussian'"):
        components.make_method(one, 10, 100, devices=1, teacher=network)
