"""Jigsaw: learning by solving jigsaw puzzles (Noroozi and Favaro 2016, arXiv 1603.09246)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.losses.transformations import classification
from ssl_jax.methods import Batch, Method, Picture, Run, Tree
from ssl_jax.methods._keys import example_keys
from ssl_jax.methods._permutations import permutation_set
from ssl_jax.methods._tiles import CELLS, arrange, make_grid, statistics
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import MLP
from ssl_jax.models.standard import is_neutral, unstandardise

EPSILON = 1e-5
CAPTION = (
    "Evaluation images cut into nine tiles: as the network sees them, arranged by the permutation "
    "that it predicts, and in their true places."
)


def make(
    encoder: nn.Module,
    run: Run,
    *,
    permutations: int = 2000,
    tile_size: int = 64,
    jitter: int = 21,
    normalize_tiles: bool = True,
    tile_dim: int = 1000,
    hidden_dim: int = 0,
) -> Method:
    """Jigsaw (arXiv 1603.09246, section 3): recognises in which order nine tiles are given.

    The tiles pass through the same encoder and a layer of `tile_dim` features with BatchNorm and
    ReLU, as in VISSL. A classifier sees the features of all nine tiles in the given order. It
    recognises the order among `permutations` fixed ones, which are far apart (`_permutations`). The
    tiles of all images share BatchNorm statistics.

    Random positions of the tiles in their cells prevent solutions by continued edges, and
    normalised tiles prevent solutions by similar brightness. Features are the encoder's output on
    the whole image; the online probe sees the mean over the tiles.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: one view.
      permutations: number of permutations, the classes of the task.
      tile_size: side of a tile, in pixels.
      jitter: number of pixels by which a tile moves in its cell, a third of the view.
      normalize_tiles: give each channel of each tile the mean and standard deviation of an average
        image. The paper does so, VISSL does not.
      tile_dim: features of each tile that the classifier sees.
      hidden_dim: width of a hidden layer of the classifier; 0 for a linear classifier, as in VISSL.

    Raises:
      ValueError: if the run does not have one view, the view is too small for the tiles, there are
        not so many permutations, or tiles are normalised without statistics of images.
    """
    grid = make_grid(encoder, run, tile_size, jitter)
    orders = permutation_set(permutations, CELLS)
    mean, std = statistics(encoder)
    if normalize_tiles and is_neutral(mean, std):
        raise ValueError(
            "normalize_tiles gives tiles the mean and standard deviation of an average image, but "
            "the encoder knows neither: set model.mean and model.std, or "
            "method.normalize_tiles=False"
        )
    reduce = MLP((tile_dim,), last_norm="affine", dense_init="torch", dtype=encoder.dtype)
    widths = (hidden_dim, permutations) if hidden_dim else (permutations,)
    classifier = MLP(widths, dense_init="torch", dtype=encoder.dtype)
    tile_network = Chain(run.bn_group, 1, encoder=encoder, tile=reduce)
    top = Chain(run.bn_group, 1, classifier=classifier)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key)
        tiles = batch["views"][:, :, : grid.tile, : grid.tile]
        params, stats = tile_network.init(keys[0], tiles)
        joined = jnp.zeros((len(tiles), 1, CELLS * tile_dim), tiles.dtype)
        top_params, top_stats = top.init(keys[1], joined)
        return params | top_params, {"batch_stats": stats | top_stats}

    def puzzle(image: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Cuts an image [h, w, c] into tiles [9, s, s, c] in a random order, a row of `orders`."""
        keys = jax.random.split(key)
        label = jax.random.randint(keys[0], (), 0, permutations)
        corners = grid.corners(keys[1])[jnp.asarray(orders)[label]]
        return grid.cut(image, corners), label

    def prepare(tiles: jax.Array) -> jax.Array:
        return normalise(tiles, mean, std) if normalize_tiles else tiles

    def joined(features: jax.Array) -> jax.Array:
        """Joins the features [b, 9, d] of an example's tiles: [b, 1, 9 d]."""
        return nn.relu(features).reshape(len(features), 1, -1)

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        keys = example_keys(key, batch["index"])
        tiles, label = jax.vmap(puzzle)(batch["views"][:, 0], keys)
        outputs, stats = tile_network(params, extra["batch_stats"], prepare(tiles))
        result, top_stats = top(params, extra["batch_stats"], joined(outputs["tile"]))
        encoded = {
            "logits": result["classifier"][:, 0],
            "permutation": label,
            "features": outputs["encoder"].mean(1, keepdims=True),
        }
        return encoded, stats | top_stats

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        loss, metrics = classification(outputs["logits"], outputs["permutation"])
        return loss, (extra, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return tile_network.features(params, extra["batch_stats"], images)

    def solutions(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Draws each image's puzzle, the predicted and the true arrangement: [n, 3, h, w, c]."""
        tiles, label = jax.vmap(puzzle)(images, example_keys(key, jnp.arange(len(images))))
        n, stats = len(images), extra["batch_stats"]
        rows = prepare(tiles).reshape(n * CELLS, *tiles.shape[2:])
        vectors = tile_network.features(params, stats, rows, upto="tile")
        top_input = joined(vectors.reshape(n, CELLS, -1))[:, 0]
        found = top.features(params, stats, top_input, upto="classifier").argmax(-1)
        return jnp.stack([arrange(tiles), solved(tiles, found), solved(tiles, label)], axis=1)

    def solved(tiles: jax.Array, label: jax.Array) -> jax.Array:
        """Draws tiles [n, 9, s, s, c] in the cells that the permutations [n] say."""
        places = jnp.argsort(jnp.asarray(orders)[label], axis=1)
        return arrange(jnp.take_along_axis(tiles, places.reshape(-1, CELLS, 1, 1, 1), axis=1))

    picture = Picture(
        "puzzles",
        "Solved puzzles",
        CAPTION,
        solutions,
        ("given", "predicted", "true"),
    )
    return Method(init, encode, objective, features, pictures=(picture,))


def normalise(tiles: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Gives every channel of tiles [..., s, s, c] the statistics that the encoder standardises by.

    The encoder therefore sees tiles of mean 0 and standard deviation 1.
    """
    x = tiles.astype(jnp.promote_types(tiles.dtype, jnp.float32))
    x = x - x.mean((-3, -2), keepdims=True)
    x = x * lax.rsqrt(jnp.square(x).mean((-3, -2), keepdims=True) + EPSILON)
    shape = x.shape
    return unstandardise(x.reshape(-1, *shape[-3:]), mean, std).reshape(shape)
