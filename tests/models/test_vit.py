"""Vision Transformers against float64 NumPy; published sizes, names, initial values, sharding."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ssl_jax import models, parallel
from ssl_jax.models.vit import ViT, patchify, positions
from ssl_jax.optim import optimizers

SMALL = models.get("vit_micro", patch_size=4).clone(depth=2)  # halves the compile time
IMAGES = np.random.default_rng(0).uniform(size=(3, 8, 12, 3)).astype(np.float32)  # 2 x 3 patches
KEEP = np.array([[0, 5, 2, 1], [3, 1, 4, 0], [2, 3, 5, 4]], np.int32)


def _abstract(module, size=(16, 16)):
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x, True), images)


def _randomised(module):
    """Draws all variables; the class token is so small that the epsilon of the norm matters."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return rng.normal(0, 1.5 / np.sqrt(np.prod(leaf.shape[:-1])), leaf.shape)
        if name == "cls_token":
            return rng.normal(0, 1e-3, leaf.shape)
        return rng.uniform(-0.5, 0.5, leaf.shape) + (name == "scale")

    tree = jax.tree_util.tree_map_with_path(draw, _abstract(module))
    return jax.tree.map(lambda a: a.astype(np.float32), tree)


def _tokens(module, variables, keep=None, images=IMAGES):
    apply = jax.jit(lambda v, x, k: module.apply(v, x, False, k, method="tokens"))
    return apply(variables, images, keep)


def _positions(rows, columns, width):
    """MAE's table of positions by its definition, one number at a time."""
    table = np.zeros((rows * columns, width))
    quarter = width // 4
    for row in range(rows):
        for column in range(columns):
            for i in range(quarter):
                for half, place in enumerate((column, row)):
                    angle = place / 10000 ** (i / quarter)
                    entry = table[row * columns + column, 2 * half * quarter :]
                    entry[i], entry[quarter + i] = math.sin(angle), math.cos(angle)
    return table


def _dense(x, p):
    return x @ np.float64(p["kernel"]) + p["bias"]


def _norm(x, p):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def _attention(x, p, heads):
    q, k, v = (np.split(_dense(x, p[name]), heads, axis=-1) for name in "qkv")
    out = []
    for i in range(heads):
        weights = np.exp(q[i] @ k[i].T / math.sqrt(q[i].shape[-1]))
        out.append(weights / weights.sum(1, keepdims=True) @ v[i])
    return _dense(np.concatenate(out, axis=-1), p["proj"])


def _mlp(x, p):
    x = _dense(x, p["fc1"])
    return _dense(x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2, p["fc2"])


def _oracle(module, params, image, keep=None):
    """Tokens of one image [h, w, 3], in float64."""
    size = module.patch_size
    rows, columns = image.shape[0] // size, image.shape[1] // size
    patches = [
        image[i * size : (i + 1) * size, j * size : (j + 1) * size].ravel()
        for i in range(rows)
        for j in range(columns)
    ]
    embed = params["patch_embed"]
    kernel = embed["kernel"].reshape(-1, module.width)
    x = _dense(np.float64(patches), {**embed, "kernel": kernel})
    x = (x + _positions(rows, columns, module.width))[slice(None) if keep is None else keep]
    x = np.concatenate([params["cls_token"][None], x])
    for i in range(module.depth):
        p = params[f"blocks_{i}"]
        x = x + _attention(_norm(x, p["norm1"]), p["attn"], module.heads)
        x = x + _mlp(_norm(x, p["norm2"]), p["mlp"])
    return _norm(x, params["norm"])


# Without blocks, the class token reaches the last normalisation while it is small.
@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("keep", [None, KEEP], ids=["all", "keep"])
def test_tokens_equal_numpy(depth, keep):
    module = SMALL.clone(depth=depth)
    variables = _randomised(module)
    want = [
        _oracle(module, variables["params"], image, None if keep is None else keep[i])
        for i, image in enumerate(IMAGES)
    ]
    got = _tokens(module, variables, keep)
    np.testing.assert_allclose(got, np.stack(want), atol=1e-5 * np.abs(want).max(), rtol=0)


def test_pooling_selects_the_class_token_or_the_mean():
    module = SMALL.clone(depth=0)
    variables = _randomised(module)
    tokens = np.asarray(_tokens(module, variables), np.float64)
    for pool, want in {"token": tokens[:, 0], "mean": tokens[:, 1:].mean(1)}.items():
        got = jax.jit(module.clone(pool=pool).apply, static_argnums=2)(variables, IMAGES, False)
        np.testing.assert_allclose(got, want, atol=2e-6)
    with pytest.raises(ValueError, match="pool must be 'token' or 'mean', got 'avg'"):
        _abstract(SMALL.clone(pool="avg"))


def test_keep_accepts_all_patches_in_any_order():
    module = SMALL.clone(depth=1)
    variables = _randomised(module)
    want = _tokens(module, variables)
    orders = np.stack([np.arange(6), np.arange(6)[::-1], [4, 2, 0, 1, 5, 3]]).astype(np.int32)
    got = _tokens(module, variables, orders)
    np.testing.assert_array_equal(got[0], want[0])
    for row in (1, 2):
        np.testing.assert_allclose(got[row, 0], want[row, 0], atol=1e-5)
        np.testing.assert_allclose(got[row, 1:], want[row, 1 + orders[row]], atol=1e-5)


def test_index_beyond_the_patches_gives_nan_for_its_example_only():
    module = SMALL.clone(depth=1)
    keep = np.array([[0, 1, 2, 3], [0, 1, 6, 2], [0, 5, 1, 2]], np.int32)
    got = _tokens(module, _randomised(module), keep)
    assert np.isnan(got).all((1, 2)).tolist() == [False, True, False]
    assert np.isfinite(got[::2]).all()


@pytest.mark.parametrize("shape", [(1, 1, 4), (14, 14, 192), (3, 5, 64)])
def test_positions_equal_their_definition(shape):
    np.testing.assert_allclose(positions(*shape), _positions(*shape), atol=1e-14)


def test_patches_are_cut_row_by_row():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 2, 2, 3)
    np.testing.assert_array_equal(patches[1, 4], images[1, 2:4, 2:4])


# torchvision's totals (tiny and small: DeiT's), minus the classifier and the positions at 224.
@pytest.mark.parametrize(
    ("name", "width", "heads", "total"),
    [
        ("vit_tiny", 192, 3, 5_717_416),
        ("vit_small", 384, 6, 22_050_664),
        ("vit_small_moco", 384, 12, 22_050_664),
        ("vit_base", 768, 12, 86_567_656),
        ("vit_large", 1024, 16, 304_326_632),
    ],
)
def test_sizes_match_published_totals(name, width, heads, total):
    module = models.get(name)
    assert (module.width, module.heads) == (width, heads)
    size = sum(leaf.size for leaf in jax.tree.leaves(_abstract(module)["params"]))
    assert size == total - 1000 * (width + 1) - (1 + 14 * 14) * width


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("pool", ["token", "mean"])
def test_features_are_float32_for_any_size(pool, dtype):
    module = SMALL.clone(pool=pool, dtype=dtype)
    variables = _abstract(module)
    for size in ((4, 4), (12, 20)):
        images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
        out = jax.eval_shape(lambda v, x: module.apply(v, x, True), variables, images)
        assert (out.shape, out.dtype) == ((2, 64), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_bfloat16_stays_close_to_float32():
    variables = _randomised(SMALL)
    want, got = (_tokens(SMALL.clone(dtype=d), variables) for d in (jnp.float32, jnp.bfloat16))
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert 1e-4 < error < 3e-2  # the lower bound shows that not everything is float32


def test_parameter_names_and_weight_decay():
    params = _abstract(SMALL)["params"]
    assert set(params) == {"patch_embed", "cls_token", "norm"} | {"blocks_0", "blocks_1"}
    dense, norm = {"kernel": True, "bias": False}, {"scale": False, "bias": False}
    decayed = optimizers.is_weight(params)
    assert decayed["blocks_1"] == {
        "norm1": norm,
        "attn": dict.fromkeys(("q", "k", "v", "proj"), dense),
        "norm2": norm,
        "mlp": {"fc1": dense, "fc2": dense},
    }
    assert (decayed["patch_embed"], decayed["norm"], decayed["cls_token"]) == (dense, norm, False)


def test_initial_values():
    module = SMALL.clone(depth=1)
    params = jax.jit(module.init, static_argnums=2)(jax.random.key(0), IMAGES, True)["params"]
    block = params["blocks_0"]
    kernels = {
        (64, 64): [block["attn"][name]["kernel"] for name in ("q", "k", "v", "proj")],
        (64, 256): [block["mlp"]["fc1"]["kernel"], block["mlp"]["fc2"]["kernel"]],
        (48, 64): [params["patch_embed"]["kernel"]],  # as a linear map, not as a convolution
    }
    for sides, arrays in kernels.items():
        bound = math.sqrt(6 / sum(sides))
        for array in arrays:  # the largest of thousands of uniform draws is within 1 % of the bound
            assert 0.99 * bound < np.abs(array).max() <= bound
            np.testing.assert_allclose(np.std(array), bound / math.sqrt(3), rtol=0.05)
    assert len({np.asarray(array).tobytes() for array in kernels[64, 64]}) == 4
    assert 0.5e-6 < np.std(params["cls_token"]) < 1.5e-6
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if path[-1].key in ("scale", "bias"):
            assert np.all(np.asarray(leaf) == (path[-1].key == "scale"))


def test_examples_never_leave_their_device():
    mesh = parallel.make_mesh()
    rows = jax.NamedSharding(mesh, P(parallel.DATA))
    module = SMALL.clone(depth=1)

    def loss(variables, images, keep):
        return jnp.square(module.apply(variables, images, True, keep, method="tokens")).mean()

    compiled = (
        jax.jit(jax.grad(loss), in_shardings=(None, rows, rows))
        .lower(
            _abstract(module),
            jax.ShapeDtypeStruct((16, 8, 12, 3), jnp.float32),
            jax.ShapeDtypeStruct((16, 4), jnp.int32),
        )
        .compile()
        .as_text()
    )
    collectives = re.findall(r" (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(", compiled)
    assert set(collectives) == {"all-reduce"}  # sums the gradient


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({}, (24, 32), "24 x 32 pixels .* patches of 16 x 16"),
        ({"patch_size": 4}, (8, 10), "8 x 10 pixels .* patches of 4 x 4"),
    ],
)
def test_patch_size_must_divide_the_image_size(options, size, message):
    with pytest.raises(ValueError, match=message):
        _abstract(models.get("vit_micro", **options), size)


def test_invalid_widths_raise():
    with pytest.raises(ValueError, match="5 heads do not divide the width 64"):
        _abstract(ViT(width=64, heads=5))
    with pytest.raises(ValueError, match=r"width must be a multiple of 4 .* got 6"):
        _abstract(ViT(width=6, heads=2))


def test_options_of_another_encoder_family_raise():
    options = "patch_size, mlp_ratio, pool, positions, mean, std, dtype"
    for option in ("stem", "bn_group", "width", "heads"):
        message = f"vit_small has no option {option}; its options are {options}$"
        with pytest.raises(TypeError, match=message):
            models.get("vit_small", **{option: 1})
    message = "resnet18 has no option positions, block; its options are width, stem"
    with pytest.raises(TypeError, match=message):
        models.get("resnet18", positions="sincos", width=2, block=None)
    with pytest.raises(ValueError, match=r"vit_tyny.*resnet200, vit_micro, vit_tiny, vit_small"):
        models.get("vit_tyny")
