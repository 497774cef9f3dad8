"""Initial weights of the heads of every method: those of the library of its source."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ssl_jax import components, methods, testing

WIDTH = testing.BATCH  # a valid length of queues, too
# torch.nn.Linear draws uniformly within 1 / sqrt(fan-in). DINO's code draws its head from
# N(0, 0.02²). Haiku, for BYOL, draws from a normal distribution, beyond that limit.
TORCH = ("moco_v1", "moco_v2", "moco_v3", "simsiam", "swav", "barlow_twins", "vicreg", "npid")


def start(name):
    """Returns the initial parameters of the small variant of a config."""
    config = importlib.import_module(f"configs.{name}").get_config("cifar10_cpu")
    fields = config.method.to_dict()
    method = methods.get(fields.pop("name"))
    limits = {n: min(v, WIDTH) if type(v) is int else v for n, v in fields.items()}
    if "shuffle_groups" in limits:
        limits["shuffle_groups"] = 1
    views = components.make_input(config).seen["views"].shape[0]
    with jax.enable_x64(True):
        encoder = tiny.encoder(config.model, jnp.float64)
        return testing.Trial(method, encoder, tiny.seen(views, 8), limits).start.params


def layers(params):
    """Yields (kernel, bias or None) of every dense layer of the heads."""
    for name in params.keys() - {"encoder", "prototypes"}:
        for layer, weights in params[name].items():
            if layer.startswith("dense"):
                yield weights["kernel"], weights.get("bias")


@pytest.mark.parametrize("name", TORCH)
def test_heads_of_methods_from_torch_start_uniform(name):
    params = start(name)
    for kernel, bias in layers(params):
        limit = len(kernel) ** -0.5
        assert 0.9 * limit < np.abs(kernel).max() <= limit * (1 + 1e-6)
        assert bias is None or 0.8 * limit < np.abs(bias).max() <= limit * (1 + 1e-6)
    assert len(list(layers(params))) > 0


def test_head_of_dino_starts_small_and_its_last_layer_as_in_torch():
    params = start("dino")
    assert len(list(layers(params))) == 3
    for kernel, bias in layers(params):
        np.testing.assert_allclose(np.std(kernel), 0.02, rtol=0.15)  # 512 or more draws
        assert not np.any(bias)
    last = params["prototypes"]["kernel"]
    limit = len(last) ** -0.5
    assert 0.9 * limit < np.abs(last).max() <= limit * (1 + 1e-6)


def test_prototypes_of_swav_have_unit_length_on_average():
    columns = np.square(start("swav")["prototypes"]["kernel"]).sum(0)
    np.testing.assert_allclose(columns.mean(), 1, rtol=0.15)


def test_heads_of_byol_start_normal():
    params = jax.tree.map(np.asarray, start("byol"))
    for kernel, bias in layers(params):
        limit = len(kernel) ** -0.5
        assert np.abs(kernel).max() > 1.5 * limit
        assert bias is None or not np.any(bias)
