"""Colorization: predicts the colours of an image from its lightness (arXiv 1603.08511)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.losses import bins
from ssl_jax.methods import Batch, Method, Picture, Run, Tree
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain
from ssl_jax.models.lab import to_lab, to_rgb
from ssl_jax.models.lab_bins import colour_bins
from ssl_jax.models.map_head import MapHead, interpolate

SIGMA = 5.0  # of the soft targets and of the smoothed frequencies, in units of a and b
GREY = 5.0  # an image without |a| or |b| above it counts as grey: NonGrayMaskLayer of the authors
MEMORY = 0.99  # factor per coloured batch by which earlier ones count less in the frequencies
CAPTION = (
    "Evaluation images without colour, with the predicted colours, and as they are. The prediction "
    "takes the lightness from the image. It is coarse, because colours are predicted for every "
    "{stride}th row and column only. Where several colours are likely, the prediction is between "
    "the likeliest ones."
)


def make(
    encoder: nn.Module,
    run: Run,
    *,
    stride: int = 4,
    neighbours: int = 5,
    uniform: float = 0.5,
    temperature: float = 0.38,
    hidden_dim: int = 256,
) -> Method:
    """Colorization: the encoder sees the lightness and predicts the colour at every place.

    Colours are the channels a and b of Lab. They are divided into 313 bins, and the loss is the
    cross-entropy with a soft target over the bins nearest to the true colour. Places count by the
    rarity of their colour (`bins.rebalancing_weights`), because most pixels of photographs are
    almost grey. Grey images have no loss.

    The authors count the colours of ImageNet beforehand. Here, the frequencies are those of the
    batches before the current one, and recent batches count most. So they fit every data set.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with attributes `dtype`,
        `pool`, `grid` and `colors` like a `resnet.ResNet`; `colors` is "lightness".
      run: one view of RGB images.
      stride: distance of the predicted pixels in the image, in rows and columns.
      neighbours: number of bins in the soft target of a colour.
      uniform: share of the uniform distribution in the frequencies, in [0, 1]; 1 counts all places
        equally.
      temperature: temperature at which predicted distributions become colours, in pictures only.
      hidden_dim: channels of the head's hidden layer.

    Raises:
      ValueError: if the run does not have one view of RGB images, the encoder sees colours, or a
        number is out of its range.
    """
    check_views(run, 1)
    size, channels = run.seen["views"].shape[2:]
    if channels != 3:
        raise ValueError(
            f"colorization learns from RGB images, but these have {channels} channel(s)"
            + (": grey images have no colours to predict" if channels == 1 else "")
            + ". Set data.channels to 3, or choose another method"
        )
    if getattr(encoder, "colors", "rgb") != "lightness" or not hasattr(encoder, "grid"):
        raise ValueError(
            "colorization needs a ResNet that sees only the lightness: set model.colors to "
            "'lightness'"
        )
    centres = colour_bins()
    if not 1 <= stride <= size or not 1 <= neighbours <= len(centres):
        raise ValueError(
            f"stride must be from 1 to {size}, the side of the images, and neighbours from 1 to "
            f"{len(centres)}; got {stride} and {neighbours}"
        )
    if not 0 <= uniform <= 1 or not temperature > 0 or hidden_dim < 1:
        raise ValueError(
            "uniform must be in [0, 1], temperature above 0 and hidden_dim at least 1; got "
            f"{uniform}, {temperature} and {hidden_dim}"
        )
    side = -(-size // stride)
    head = MapHead(side, len(centres), hidden_dim, stride, encoder.grid, dtype=encoder.dtype)
    pooled = Chain(run.bn_group, 1, encoder=encoder)
    network = Chain(run.bn_group, 1, encoder=encoder.clone(pool="none"), head=head)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        params, stats = network.init(key, batch["views"])
        # All colours are as frequent as in one image that has all of them.
        counts = jnp.full(len(centres), 1 / len(centres))
        return params, {"batch_stats": stats, "counts": counts}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del key
        outputs, stats = network(params, extra["batch_stats"], batch["views"])
        ab = to_lab(batch["views"][:, 0])[:, ::stride, ::stride, 1:]
        distances = bins.squared_distances(ab, centres)
        nearest = distances.argmin(-1)
        target = bins.soft_targets(distances, neighbours=neighbours, sigma=SIGMA)
        logits = outputs["head"][:, 0]
        weights = bins.rebalancing_weights(extra["counts"], centres, sigma=SIGMA, uniform=uniform)
        error = -(target * jax.nn.log_softmax(logits)).sum(-1) * weights[nearest]
        # The weights multiply the predicted probabilities; dividing by them undoes it.
        likeliest = (logits - jnp.log(weights)[None, None, None]).argmax(-1)
        has_colour = (jnp.abs(ab) > GREY).any((1, 2, 3)).astype(error.dtype)
        return {
            "error": error.mean((1, 2)) * has_colour,
            "correct": (likeliest == nearest).mean((1, 2)) * has_colour,
            "shares": bins.bin_shares(nearest, len(centres), error.dtype) * has_colour[:, None],
            "has_colour": has_colour,
            "features": outputs["encoder"].mean((2, 3)),
        }, stats

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        images = outputs["has_colour"].sum()
        present = jnp.maximum(images, 1)
        counts = outputs["shares"].sum(0)
        metrics = {
            "pretext_accuracy": outputs["correct"].sum() / present,
            "pretext_chance": counts.max() / present,
            "grey_images": 1 - images / len(outputs["has_colour"]),
        }
        # Without colours in the batch, the frequencies stay; decay alone would end in 0 / 0.
        memory = jnp.where(images > 0, MEMORY, 1)
        extra = extra | {"counts": memory * extra["counts"] + counts}
        return outputs["error"].sum() / present, (extra, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return pooled.features(params, extra["batch_stats"], images)

    def colours(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Draws each image in grey, with predicted and with true colours: [n, 3, h, w, 3]."""
        del key
        logits = network.features(params, extra["batch_stats"], images, upto="head")
        ab = bins.annealed_mean(logits, centres, temperature=temperature)
        lab = to_lab(images)
        ab = interpolate(ab, np.arange(size) / stride)
        lightness = lab[..., :1]
        columns: list[Any] = [jnp.concatenate([lightness, x], -1) for x in (0 * ab, ab)]
        return jnp.stack([*map(to_rgb, columns), images], axis=1)

    picture = Picture(
        "colours",
        "Predicted colours",
        CAPTION.format(stride=stride),
        colours,
        ("lightness", "predicted colours", "original"),
    )
    return Method(init, encode, objective, features, pictures=(picture,))
