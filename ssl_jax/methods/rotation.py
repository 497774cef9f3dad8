"""Rotation: learning by predicting image rotations (Gidaris et al. 2018, arXiv 1803.07728)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.losses.transformations import classification, direction, to_angle
from ssl_jax.methods import Batch, Method, Picture, Run, Tree
from ssl_jax.methods._keys import example_keys
from ssl_jax.methods._rotate import quarter_turns, rotate, take_turn
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import MLP

ANGLES = ("quarter", "any")
TURNS = 4
CAPTION = (
    "Evaluation images after a random rotation, and turned back by the angle that the network "
    "predicts. A correct prediction restores the original."
)


def make(encoder: nn.Module, run: Run, *, angles: str = "quarter") -> Method:
    """Rotation prediction (arXiv 1803.07728, section 3): recognises how an image was turned.

    All four rotations of every image are in the batch, which the paper found better than one
    rotation per image (section 3.2). They share BatchNorm statistics. The head is linear.

    With angles="any", the images are first rotated by a random angle between -45 and 45 degrees, so
    that all angles are equally frequent. The head then predicts cosine and sine. This task is not
    in the paper; `_rotate.rotate` describes how it avoids trivial solutions.

    The online probe sees the copy that is not turned by a multiple of 90 degrees.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: one square view.
      angles: "quarter": classification of 0, 90, 180 and 270 degrees. "any": regression of an angle
        in [-180, 180) degrees.

    Raises:
      ValueError: if the angles are unknown, the run does not have one view, or it is not square.
    """
    check_views(run, 1)
    shape = run.seen["views"].shape[1:3]
    if angles not in ANGLES:
        raise ValueError(f"angles must be one of {', '.join(ANGLES)}; got {angles!r}")
    if shape[0] != shape[1]:
        raise ValueError(f"rotation needs square views, got {shape[0]} x {shape[1]} pixels")
    head = MLP((TURNS if angles == "quarter" else 2,), dense_init="torch", dtype=encoder.dtype)
    networks = Chain(run.bn_group, 1, encoder=encoder, head=head)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        params, stats = networks.init(key, batch["views"])
        return params, {"batch_stats": stats}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        images, tilt = tilted(batch["views"][:, 0], example_keys(key, batch["index"]))
        outputs, stats = networks(params, extra["batch_stats"], quarter_turns(images))
        # The first of the four copies is the upright image.
        upright = outputs["encoder"][:, :1]
        return {"prediction": outputs["head"], "tilt": tilt, "features": upright}, stats

    def tilted(images: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Rotates images by less than a quarter turn; returns the angles [n] in radians, too."""
        if angles == "quarter":
            return images, jnp.zeros(len(images), images.dtype)
        limit = math.pi / TURNS
        tilt = jax.vmap(
            lambda key: jax.random.uniform(key, (), images.dtype, minval=-limit, maxval=limit)
        )(keys)
        return jax.vmap(rotate)(images, tilt), tilt

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        prediction = outputs["prediction"]
        turn = jnp.broadcast_to(jnp.arange(TURNS)[None], prediction.shape[:2])
        if angles == "quarter":
            loss, metrics = classification(prediction, turn)
        else:
            angle = outputs["tilt"][:, None] + turn * (2 * math.pi / TURNS)
            loss, metrics = direction(prediction, angle)
        return loss, (extra, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"], images)

    def turned_back(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Draws each image rotated, turned back and original: [n, 3, h, w, c]."""
        keys = jax.random.split(key)
        tilted_images, _ = tilted(images, example_keys(keys[0], jnp.arange(len(images))))
        rotated = take_turn(tilted_images, jax.random.randint(keys[1], (len(images),), 0, TURNS))
        found = networks.features(params, extra["batch_stats"], rotated, upto="head")
        if angles == "quarter":
            back = take_turn(rotated, -found.argmax(-1))
        else:
            angle = to_angle(found)
            turns = jnp.round(angle / (2 * math.pi / TURNS)).astype(jnp.int32)
            rest = angle - turns * (2 * math.pi / TURNS)
            back = jax.vmap(rotate)(take_turn(rotated, -turns), -rest)
        return jnp.stack([rotated, back, images], axis=1).clip(0, 1)

    picture = Picture(
        "rotations",
        "Predicted rotations",
        CAPTION,
        turned_back,
        ("rotated", "turned back", "original"),
    )
    return Method(init, encode, objective, features, pictures=(picture,))
