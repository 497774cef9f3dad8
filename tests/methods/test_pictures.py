"""Pictures that methods draw: each is compared with a computation by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ssl_jax.methods import Run, dino, mae, rbm
from ssl_jax.models import dbn
from ssl_jax.models.vit import ViT

KEY = jax.random.key(3)
SIZE, PATCH, N = 16, 4, 3
IMAGES = np.random.default_rng(4).random((N, SIZE, SIZE, 3)).astype(np.float32)


def start(method):
    views = method_views(method)
    return method.init(jax.random.key(1), views)


def method_views(method):
    del method
    return {"views": jnp.asarray(IMAGES)[:, None], "index": jnp.arange(N)}


def draw(picture, params, extra, images=IMAGES):
    grid = np.asarray(jax.jit(picture.draw)(params, extra, jnp.asarray(images), KEY))
    assert grid.min() >= 0
    assert grid.max() <= 1
    return grid


@pytest.mark.parametrize("normalize", [True, False])
def test_mae_fills_hidden_patches_with_the_prediction(normalize):
    encoder = ViT(patch_size=PATCH, width=8, depth=1, heads=2)
    options = {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2}
    run = Run(tiny.seen(1, SIZE), 8, N, num_examples=N)
    method = mae.make(encoder, run, normalize_pixels=normalize, **options)
    params, extra = start(method)
    # A decoder that predicts 0 everywhere: with normalisation, that is each patch's mean.
    params["decoder"]["pixels"] = jax.tree.map(jnp.zeros_like, params["decoder"]["pixels"])
    (picture,) = method.pictures
    grid = draw(picture, params, extra)
    assert grid.shape == (N, 3, SIZE, SIZE, 3)
    np.testing.assert_allclose(grid[:, 0], IMAGES, atol=1e-6)
    for i, image in enumerate(IMAGES):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, i), 16))
        masked, predicted = image.copy(), image.copy()
        for patch in order[4:]:
            row, column = divmod(patch, 4)
            place = np.s_[PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)]
            masked[place] = 0.5
            predicted[place] = image[place].mean() if normalize else 0
        np.testing.assert_allclose(grid[i, 1], masked, atol=1e-6)
        np.testing.assert_allclose(grid[i, 2], predicted, atol=1e-6)
    assert picture.columns == ("original", "75% hidden", "prediction")


def test_dino_shows_where_the_class_token_of_the_last_block_looks():
    encoder = ViT(patch_size=PATCH, width=8, depth=2, heads=2)
    run = Run(tiny.seen(2, SIZE), 8, N, num_examples=N)
    method = dino.make(encoder, run, prototypes=8, hidden_dim=8, bottleneck_dim=4)
    views = {"views": jnp.asarray(IMAGES)[:, None].repeat(2, axis=1), "index": jnp.arange(N)}
    params, extra = method.init(jax.random.key(1), views)
    other = jax.tree.map(lambda x: x + 1, params)  # the picture shows the teacher, not the student
    (picture,) = method.pictures
    grid = draw(picture, other, extra)
    assert grid.shape == (N, 4, SIZE, SIZE, 3)
    assert picture.columns == ("image", "mean", "head 1", "head 2")
    np.testing.assert_array_equal(grid[:, 0], IMAGES)

    # By hand: the tokens before the last block, then queries and keys of its attention.
    weights = extra["target"]["encoder"]
    first = {k: v for k, v in weights.items() if k not in ("blocks_1", "norm")}
    first["norm"] = {"scale": jnp.ones(8), "bias": jnp.zeros(8)}
    shallow = encoder.clone(depth=1)
    _, state = shallow.apply(
        {"params": first}, IMAGES, False, method="tokens",
        capture_intermediates=True, mutable=["intermediates"],
    )  # fmt: skip
    x = np.asarray(state["intermediates"]["blocks_0"]["__call__"][0], np.float64)
    last = jax.tree.map(lambda w: np.asarray(w, np.float64), weights["blocks_1"])
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * last["norm1"]["scale"] + last["norm1"]["bias"]
    q, k = (x @ last["attn"][name]["kernel"] + last["attn"][name]["bias"] for name in "qk")
    maps = []
    for head in range(2):
        part = np.s_[4 * head : 4 * head + 4]
        logits = np.einsum("nf,ntf->nt", q[:, 0, part], k[..., part]) / 2
        share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        maps.append(share[:, 1:].reshape(N, 4, 4))
    maps = np.stack([np.mean(maps, axis=0), *maps], axis=1)
    maps /= maps.max((2, 3), keepdims=True)
    for row, column in itertools.product(range(4), range(4)):
        shown = grid[:, 1:, PATCH * row + 1, PATCH * column + 2]
        np.testing.assert_allclose(shown, maps[:, :, row, column, None].repeat(3, -1), atol=1e-4)


def test_dino_with_another_encoder_has_no_picture():
    run = Run(tiny.seen(2, SIZE), 8, N, num_examples=N)
    assert dino.make(tiny.Encoder(), run, prototypes=8).pictures == ()


def test_rbm_shows_its_largest_filters():
    run = Run(tiny.seen(1, 2), 8, N, num_examples=N)
    method = rbm.make(dbn.DBN((12, 3), "gaussian"), run)
    images = IMAGES[:, :2, :2]
    params, extra = method.init(KEY, {"views": jnp.asarray(images)[:, None]})
    grid = draw(method.pictures[0], params, extra, images)
    kernel = np.asarray(extra["stack"]["rbm0"]["kernel"])
    largest = np.argsort(-(kernel**2).sum(0))[:10]
    for i, unit in enumerate(largest):
        weights = kernel[:, unit].reshape(2, 2, 3)
        np.testing.assert_allclose(grid[0, i], 0.5 + weights / abs(weights).max() / 2, atol=1e-6)
    assert grid.shape == (1, 10, 2, 2, 3)


def test_rbm_generates_images_of_its_density():
    """Two machines without coupling: pixels follow the visible biases of the first one."""
    run = Run(tiny.seen(1, 2, 1), 8, N, num_examples=N)
    method = rbm.make(dbn.DBN((4, 3), "bernoulli"), run)
    images = IMAGES[:, :2, :2, :1]
    params, extra = method.init(KEY, {"views": jnp.asarray(images)[:, None]})
    stack = jax.tree.map(jnp.zeros_like, extra["stack"])
    stack["rbm0"]["visible_bias"] = jnp.float32([-3, -1, 1, 3])
    # The top machine's visible units are on, and hidden unit 0 of the first machine adds 2.
    stack["rbm1"]["visible_bias"] = jnp.full(4, 20.0)
    stack["rbm0"]["kernel"] = stack["rbm0"]["kernel"].at[:, 0].set(2)
    grid = draw(method.pictures[1], params, extra | {"stack": stack}, images)
    assert grid.shape == (5, 10, 2, 2, 1)
    want = 1 / (1 + np.exp(-np.array([-1.0, 1, 3, 5])))
    np.testing.assert_allclose(grid, np.broadcast_to(want.reshape(2, 2, 1), grid.shape), atol=1e-5)
