"""Context encoders: feature learning by inpainting (Pathak et al. 2016, arXiv 1604.07379)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from ssl_jax.losses import discriminate, fool
from ssl_jax.methods import Batch, Method, Picture, Run, Tree, _holes
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain
from ssl_jax.models.decoder import Decoder
from ssl_jax.models.discriminator import SLOPE, Discriminator
from ssl_jax.models.norm import BatchNorm
from ssl_jax.models.standard import is_neutral
from ssl_jax.models.vit import ViT

GREY = 0.5  # fills holes if the encoder does not know the mean colour of its images
CAPTION = (
    "Evaluation images, the same images with a hole, and the hole filled by the decoder. "
    "Reconstruction alone fills with the blurred mean of all likely contents; an adversary asks "
    "for one sharp content, which may differ from the original."
)


class Bottleneck(nn.Module):
    """Dense layer between the encoder's map and the decoder, with normalisation and leaky ReLU.

    Attributes:
      width: width of the code.
      bn_group: rows that share normalisation statistics; 0 = the global batch.
      bn_views: views that do not share normalisation statistics (`norm.BatchNorm`).
      dtype: dtype of activations; parameters are float32.
    """

    width: int
    bn_group: int = 0
    bn_views: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [n, h, w, f] -> codes [n, width]."""
        x = x.reshape(len(x), -1)
        x = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="dense")(x)
        norm = BatchNorm(group=self.bn_group, views=self.bn_views, dtype=self.dtype, name="bn")
        return nn.leaky_relu(norm(x, train), SLOPE)


def make(
    encoder: nn.Module,
    run: Run,
    *,
    loss: str = "both",
    mask: str = "center",
    hole_area: float = 0.25,
    blocks: int = 4,
    cells: int = 8,
    overlap: int = 4,
    overlap_weight: float = 10.0,
    reconstruction_weight: float = 0.999,
    bottleneck_dim: int = 4000,
    decoder_width: int = 32,
    discriminator_width: int = 64,
) -> Method:
    """Context encoder (arXiv 1604.07379, section 3): predicts the content of a hole in the image.

    The encoder sees the image with the hole filled by the mean colour. A dense layer makes one code
    of its last map, without pooling, and a decoder predicts the hole and `overlap` visible pixels
    around it. Two losses are possible, alone or together:

    reconstruction: mean of w (prediction - image)² over the predicted pixels, with the pixels
      scaled to [-1, 1]. The weight w is 1 in the hole and `overlap_weight` in the overlap, which
      makes the prediction continue its surroundings.
    adversarial: -log D(prediction), where the discriminator D learns in the same step to tell
      predictions from images. D sees the predicted square of "center" holes, without its
      surroundings (the paper found that a D which sees them learns too easily from the seam). For
      other holes D sees the whole image with the prediction in its place, because a network needs a
      rectangle.

    "both" is reconstruction_weight * reconstruction + (1 - reconstruction_weight) * adversarial.

    `features` are the encoder's for the whole image: the average of its last map over positions.
    "reconstruction_error" is the mean squared error in the holes, of pixels in [0, 1]. The guess
    beside it, "reconstruction_chance", fills all holes with the one best colour: the mean colour of
    the batch's hidden pixels.

    Differs from the authors' code: the encoder; upsampling instead of transposed convolutions in
    the decoder; D learns in the same step as the generator instead of before it. For "blocks" and
    "free_form", the code predicts and judges the whole image; here, the hole and its border.

    Args:
      encoder: a `resnet.ResNet`, or another module with a field `pool` that can be "none".
      run: one view.
      loss: "both", "reconstruction" or "adversarial". Without adversary there is no discriminator.
      mask: "center", "blocks" or "free_form" (`_holes.make`).
      hole_area: fraction of the image that is predicted ("center") or hidden (the others).
      blocks: number of squares of the mask "blocks".
      cells: random numbers along a side of the image for "free_form"; more give smaller blobs.
      overlap: visible pixels around a hole that are predicted, too.
      overlap_weight: weight of their error.
      reconstruction_weight: weight of the reconstruction in "both", in (0, 1).
      bottleneck_dim: width of the code.
      decoder_width: channels of the decoder's last layers.
      discriminator_width: channels of the discriminator's first layer.

    Raises:
      ValueError: if the encoder has no map, the run does not have one view, the loss or mask is
        unknown, a number is out of its range, or the hole does not fit (`_holes.make`).
    """
    check_views(run, 1)
    if isinstance(encoder, ViT) or not hasattr(encoder, "pool"):
        raise ValueError(
            "a context encoder decodes the encoder's map before pooling, so it needs a ResNet, "
            f"not {encoder}"
        )
    if overlap < 0 or not overlap_weight > 0 or not 0 < reconstruction_weight < 1:
        raise ValueError(
            f"overlap must be at least 0, got {overlap}; overlap_weight must be positive, got "
            f"{overlap_weight}; reconstruction_weight must be in (0, 1), got "
            f"{reconstruction_weight}"
        )
    size, channels = run.seen["views"].shape[1], run.seen["views"].shape[-1]
    if overlap > size // 4:
        raise ValueError(
            f"an overlap of {overlap} pixels around a hole leaves too little of an image of {size} "
            f"x {size} pixels unpredicted: set method.overlap to {size // 4} or less"
        )
    draw_holes = _holes.make(
        mask, size, area=hole_area, overlap=overlap, blocks=blocks, cells=cells
    )
    side = _holes.square_side(size, hole_area) if mask == "center" else size
    first, dtype = (size - side) // 2, encoder.dtype
    predicted = (slice(None), slice(first, first + side), slice(first, first + side))
    pooled = Chain(run.bn_group, 1, encoder=encoder)
    networks = Chain(
        run.bn_group,
        1,
        encoder=encoder.clone(pool="none"),
        bottleneck=Bottleneck(bottleneck_dim, dtype=dtype),
        decoder=Decoder(side, decoder_width, channels, dtype=dtype),
    )
    judge = Chain(run.bn_group, 1, discriminator=Discriminator(discriminator_width, dtype=dtype))
    weights = {
        "both": (reconstruction_weight, 1 - reconstruction_weight),
        "reconstruction": (1.0, 0.0),
        "adversarial": (0.0, 1.0),
    }
    if loss not in weights:
        raise ValueError(f"unknown loss {loss!r}; choose one of: {', '.join(weights)}")
    reconstruction, adversarial = weights[loss]

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key)
        images = batch["views"]
        params, stats = networks.init(keys[0], images)
        if adversarial:
            judge_params, judge_stats = judge.init(keys[1], images[:, 0][predicted][:, None])
            params, stats = params | judge_params, stats | judge_stats
        return params, {"batch_stats": stats}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        images, holes = batch["views"][:, 0], draw_holes(key, batch["index"])
        modules, stats = networks(params, extra["batch_stats"], hidden(images, holes)[:, None])
        drawn, real, hole = modules["decoder"][:, 0], images[predicted], holes[predicted]
        around = _holes.border(hole, overlap)
        errors = jnp.square(drawn - real).mean(-1, keepdims=True)
        weighted = errors * jnp.where(hole, 1, jnp.where(around, overlap_weight, 0))
        outputs = {
            # The factor 4 is that of pixels in [-1, 1].
            "loss": 4 * weighted.sum((1, 2, 3)) / (hole | around).sum((1, 2, 3)),
            "error": _mean_over(hole, errors)[:, 0],
            "colour": _mean_over(hole, real),
            "squares": _mean_over(hole, jnp.square(real)),
            "features": modules["encoder"].mean((2, 3)),
        }
        if adversarial:
            filled = jnp.where(hole | around, drawn, real)
            logits, judge_stats = play(params, extra["batch_stats"], real, filled)
            outputs, stats = outputs | logits, stats | judge_stats
        return outputs, stats

    def hidden(images: jax.Array, holes: jax.Array) -> jax.Array:
        """Fills the holes of images [n, h, w, c] with the mean colour."""
        mean = getattr(encoder, "mean", ())
        neutral = is_neutral(mean, getattr(encoder, "std", ()))
        colour = jnp.asarray((GREY,) * channels if neutral else mean, images.dtype)
        return jnp.where(holes, colour.reshape(1, 1, 1, -1), images)

    def play(params: Tree, stats: Tree, real: jax.Array, filled: jax.Array) -> tuple[dict, Tree]:
        """Returns logits [n] of the discriminator, with the gradients that the losses need.

        "real" and "filled" depend on the discriminator alone, "fool" on the filled images alone.
        """
        real, filled = (2 * x[:, None] - 1 for x in (real, filled))
        on_real, stats = judge(params, stats, real)
        on_filled, new_stats = judge(params, stats, lax.stop_gradient(filled))
        # The same forward as before, which the compiler therefore runs once.
        fooled, _ = judge(lax.stop_gradient(params), stats, filled)
        logits = {"real": on_real, "filled": on_filled, "fool": fooled}
        return {name: x["discriminator"][:, 0, 0] for name, x in logits.items()}, new_stats

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        colour = outputs["colour"].mean(0)
        metrics = {
            "reconstruction_error": outputs["error"].mean(),
            "reconstruction_chance": (outputs["squares"].mean(0) - jnp.square(colour)).mean(),
        }
        value = reconstruction * outputs["loss"].mean()
        if adversarial:
            learned, judged = discriminate(outputs["real"], outputs["filled"])
            fooled = fool(outputs["fool"])
            value += adversarial * fooled + learned
            metrics |= judged | {"discriminator_loss": learned, "adversarial_loss": fooled}
        return value, (extra, lax.stop_gradient(metrics))

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return pooled.features(params, extra["batch_stats"], images)

    def fillings(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Draws original, hole and filled image of each image: [n, 3, h, w, c]."""
        holes = draw_holes(key, jnp.arange(len(images)))
        shown = hidden(images, holes)
        drawn = networks.features(params, extra["batch_stats"], shown, upto="decoder")
        filled = jnp.where(holes, images.at[predicted].set(drawn), images)
        return jnp.stack([images, shown, filled], axis=1).clip(0, 1)

    picture = Picture("fillings", "Filled holes", CAPTION, fillings, ("original", "hole", "filled"))
    return Method(init, encode, objective, features, pictures=(picture,))


def _mean_over(hole: jax.Array, x: jax.Array) -> jax.Array:
    """Averages x [n, h, w, c] over the pixels of each hole [n, h, w, 1]: [n, c]."""
    return jnp.where(hole, x, 0).sum((1, 2)) / hole.sum((1, 2))
