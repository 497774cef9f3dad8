"""Outputs of blocks against networks that end there, with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models import dbn, layers, resnet, split, vit

IMAGES = np.random.default_rng(0).uniform(size=(3, 16, 16, 3)).astype(np.float32)


def variables(encoder):
    """Variables of the encoder in which no leaf has its initial value."""
    tree = encoder.init(jax.random.key(0), jnp.asarray(IMAGES), False)
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(1)
    moved = [x + 0.1 * rng.uniform(size=x.shape).astype(np.float32) for x in leaves]
    return jax.tree.unflatten(structure, moved)


def select(tree, names):
    return {
        kind: {name: x for name, x in modules.items() if name in names}
        for kind, modules in tree.items()
    }


@pytest.mark.parametrize("block", [resnet.BasicBlock, resnet.Bottleneck])
def test_residual_block_outputs_equal_shorter_networks(block):
    options = {"width": 0.125, "stem": "cifar"}
    encoder = resnet.ResNet(block, (2, 1), **options)
    weights = variables(encoder)
    outputs = layers.outputs(encoder, weights, IMAGES)
    assert layers.order(list(outputs)) == ["layer1_0", "layer1_1", "layer2_0", "features"]
    for name, sizes in (("layer1_0", (1,)), ("layer1_1", (2,)), ("layer2_0", (2, 1))):
        shorter = resnet.ResNet(block, sizes, **options)
        names = shorter.init(jax.random.key(0), jnp.asarray(IMAGES), False)["params"]
        wanted = shorter.apply(select(weights, names), IMAGES, False)
        np.testing.assert_allclose(outputs[name], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outputs["features"], encoder.apply(weights, IMAGES, False))


def test_blocks_of_a_split_encoder_are_those_of_its_halves():
    encoder = split.SplitResNet(resnet.BasicBlock, (1, 1), width=0.25, stem="cifar")
    weights = variables(encoder)
    outputs = layers.outputs(encoder, weights, IMAGES)
    blocks = ["first/layer1_0", "second/layer1_0", "first/layer2_0", "second/layer2_0"]
    assert layers.order(list(outputs)) == [*blocks, "features"]
    half = resnet.ResNet(resnet.BasicBlock, (1, 1), width=0.125, stem="cifar")
    own = {kind: modules["second"] for kind, modules in weights.items()}
    wanted = layers.outputs(half, own, IMAGES[..., 1:])["layer1_0"]
    np.testing.assert_allclose(outputs["second/layer1_0"], wanted, rtol=1e-6)


def test_blocks_of_an_encoder_of_patches_are_averaged_over_the_patches():
    options = {"width": 0.125, "stem": "cifar", "norm": "layer"}
    encoder = resnet.ResNet(resnet.BasicBlock, (1,), patch=8, patch_stride=8, **options)
    weights = variables(encoder)
    outputs = layers.outputs(encoder, weights, IMAGES)
    one = encoder.clone(patch=0, patch_stride=0)
    quarters = [IMAGES[:, y : y + 8, x : x + 8] for y in (0, 8) for x in (0, 8)]
    wanted = np.mean([layers.outputs(one, weights, q)["layer1_0"] for q in quarters], axis=0)
    np.testing.assert_allclose(outputs["layer1_0"], wanted, rtol=1e-5)


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_transformer_block_outputs_equal_the_blocks_applied_in_turn(pool):
    options = {"patch_size": 8, "width": 8, "heads": 2, "pool": pool}
    encoder = vit.ViT(depth=11, **options)
    weights = variables(encoder)
    outputs = layers.outputs(encoder, weights, IMAGES)
    assert layers.order(list(outputs)) == [*(f"blocks_{i}" for i in range(11)), "features"]
    assert {x.shape for x in outputs.values()} == {(3, 8)}
    params = weights["params"]
    kernel, bias = (params["patch_embed"][name] for name in ("kernel", "bias"))
    patches = vit.patchify(jnp.asarray(IMAGES), 8).reshape(3, 4, -1)
    x = patches @ kernel.reshape(-1, 8) + bias[None, None] + vit.positions(2, 2, 8)[None]
    x = jnp.concatenate([jnp.broadcast_to(params["cls_token"], (3, 1, 8)), x], axis=1)
    for i in range(11):
        x = vit.Block(2, 4, jnp.float32).apply({"params": params[f"blocks_{i}"]}, x)
        wanted = x[:, 0] if pool == "token" else x[:, 1:].mean(1)
        np.testing.assert_allclose(outputs[f"blocks_{i}"], wanted, rtol=1e-4, atol=1e-5)


def test_dbn_machine_outputs_make_the_features():
    encoder = dbn.DBN(widths=(6, 4))
    weights = variables(encoder)
    outputs = layers.outputs(encoder, weights, IMAGES)
    assert layers.order(list(outputs)) == ["rbm0", "rbm1", "features"]
    both = np.concatenate([outputs["rbm0"], outputs["rbm1"]], axis=1)
    np.testing.assert_array_equal(both, outputs["features"])


def test_all_outputs_cost_one_forward():
    encoder = resnet.ResNet(resnet.BasicBlock, (1, 1), width=0.25, stem="cifar")
    weights = variables(encoder)

    def flops(function):
        return jax.jit(function).lower(weights, IMAGES).compile().cost_analysis()["flops"]

    forward_flops = flops(lambda w, x: encoder.apply(w, x, False))
    assert flops(lambda w, x: layers.outputs(encoder, w, x)) < 1.02 * forward_flops
