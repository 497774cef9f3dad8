"""Relative position of two patches: context prediction (Doersch et al. 2015, arXiv 1505.05192)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.losses.transformations import classification
from ssl_jax.methods import Batch, Method, Picture, Run, Tree
from ssl_jax.methods import _shortcuts as shortcuts
from ssl_jax.methods._keys import example_keys
from ssl_jax.methods._tiles import CELLS, arrange, make_grid, statistics
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import MLP

COLOURS = ("keep", "drop", "project")
CENTRE = CELLS // 2
NEIGHBOURS = tuple(cell for cell in range(CELLS) if cell != CENTRE)
CAPTION = (
    "The centre patch of evaluation images and one neighbour, in its true place and where the "
    "network places it. The network sees only the two patches."
)


def make(
    encoder: nn.Module,
    run: Run,
    *,
    tile_size: int = 64,
    jitter: int = 21,
    colour: str = "keep",
    downsample: float = 0.0,
    hidden_dim: int = 4096,
) -> Method:
    """Relative position (arXiv 1505.05192, section 3): where is a patch relative to another one?

    The centre patch of a 3x3 grid forms a pair with each of its eight neighbours. All nine patches
    pass through the encoder once. The head sees the features of a pair and classifies the place of
    the neighbour. Gaps and random positions prevent solutions by continued lines (section 3.1). The
    patches of all images share BatchNorm statistics.

    Features are the encoder's output on the whole image; the online probe sees the mean over the
    patches.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: one view.
      tile_size: side of a patch, in pixels.
      jitter: number of pixels by which a patch moves in its cell, a third of the view.
      colour: guard against chromatic aberration. "keep": none. "drop": keep one random channel of
        each patch and replace the others by noise. "project": remove the green-magenta component.
      downsample: probability that a patch is reduced to fewer pixels, at least 10 a side, and
        enlarged again.
      hidden_dim: width of the head's hidden layer, which has BatchNorm and ReLU.

    Raises:
      ValueError: if the run does not have one view, the view is too small for the patches, a guard
        is unknown or needs colour images, or patches are too small to be reduced.
    """
    grid = make_grid(encoder, run, tile_size, jitter)
    channels = run.seen["views"].shape[-1]
    if colour not in COLOURS:
        raise ValueError(f"colour must be one of {', '.join(COLOURS)}; got {colour!r}")
    if colour != "keep" and channels != 3:
        raise ValueError(
            f"colour={colour!r} needs images with 3 channels, got {channels}: set method.colour to "
            "'keep'"
        )
    if not 0 <= downsample <= 1 or (downsample and tile_size <= shortcuts.LOWEST_SIDE):
        raise ValueError(
            f"downsample must be a probability, and 0 for patches of up to "
            f"{shortcuts.LOWEST_SIDE} pixels; got {downsample} and patches of {tile_size} pixels"
        )
    mean, std = statistics(encoder)
    head = MLP((hidden_dim, len(NEIGHBOURS)), dense_init="torch", dtype=encoder.dtype)
    patch_network = Chain(run.bn_group, 1, encoder=encoder)
    pair_network = Chain(run.bn_group, 1, head=head)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key)
        tiles = batch["views"][:, :, : grid.tile, : grid.tile]
        params, stats = patch_network.init(keys[0], tiles)
        shapes = jax.eval_shape(lambda: patch_network.features(params, stats, tiles[:, 0]))
        pair = jnp.zeros((len(tiles), 1, 2 * shapes.shape[-1]), tiles.dtype)
        head_params, head_stats = pair_network.init(keys[1], pair)
        return params | head_params, {"batch_stats": stats | head_stats}

    def patches(image: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Cuts an image into patches [9, s, s, c]; returns them raw and as encoder input."""
        keys = jax.random.split(key, 3)
        raw = tiles = grid.cut(image, grid.corners(keys[0]))
        if downsample:
            tiles = shortcuts.lower_resolution(tiles, keys[1], downsample)
        if colour == "drop":
            tiles = shortcuts.drop_colours(tiles, keys[2], mean, std)
        elif colour == "project":
            tiles = shortcuts.project_colours(tiles)
        return raw, tiles

    def pairs(features: jax.Array) -> jax.Array:
        """Joins the centre's features to each neighbour's: [b, 9, f] -> [b, 8, 2 f]."""
        others = jnp.concatenate([features[:, :CENTRE], features[:, CENTRE + 1 :]], axis=1)
        centre = jnp.broadcast_to(features[:, CENTRE : CENTRE + 1], others.shape)
        return jnp.concatenate([centre, others], axis=-1)

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        keys = example_keys(key, batch["index"])
        _, tiles = jax.vmap(patches)(batch["views"][:, 0], keys)
        outputs, stats = patch_network(params, extra["batch_stats"], tiles)
        result, head_stats = pair_network(params, extra["batch_stats"], pairs(outputs["encoder"]))
        encoded = {
            "logits": result["head"],
            "features": outputs["encoder"].mean(1, keepdims=True),
        }
        return encoded, stats | head_stats

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        logits = outputs["logits"]
        label = jnp.broadcast_to(jnp.arange(len(NEIGHBOURS))[None], logits.shape[:2])
        loss, metrics = classification(logits, label)
        return loss, (extra, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return patch_network.features(params, extra["batch_stats"], images)

    def placements(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Draws each image's patches, a pair in its true and its predicted place."""
        n, stats = len(images), extra["batch_stats"]
        keys = jax.random.split(key)
        raw, tiles = jax.vmap(patches)(images, example_keys(keys[0], jnp.arange(n)))
        rows = tiles.reshape(n * CELLS, *tiles.shape[2:])
        vectors = patch_network.features(params, stats, rows).reshape(n, CELLS, -1)
        label = jax.random.randint(keys[1], (n,), 0, len(NEIGHBOURS))
        pair = jnp.take_along_axis(pairs(vectors), label.reshape(-1, 1, 1), axis=1)[:, 0]
        found = pair_network.features(params, stats, pair, upto="head").argmax(-1)
        cells = jnp.asarray(NEIGHBOURS)
        neighbour = jnp.take_along_axis(raw, cells[label].reshape(-1, 1, 1, 1, 1), axis=1)
        canvases = [raw]
        for cell in (cells[label], cells[found]):
            here = jnp.arange(CELLS).reshape(1, CELLS, 1, 1, 1)
            canvas = jnp.where(here == cell.reshape(-1, 1, 1, 1, 1), neighbour, 0.8)
            canvases.append(jnp.where(here == CENTRE, raw, canvas))
        return jnp.stack([arrange(canvas) for canvas in canvases], axis=1)

    picture = Picture(
        "placements",
        "Predicted positions",
        CAPTION,
        placements,
        ("image", "true", "predicted"),
    )
    return Method(init, encode, objective, features, pictures=(picture,))
