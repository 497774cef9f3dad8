"""MAE: masked autoencoders are scalable vision learners (He et al. 2021, arXiv 2111.06377)."""

from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.methods import Batch, Method, Picture, Run, Tree
from ssl_jax.methods._keys import example_keys
from ssl_jax.methods._views import check_views
from ssl_jax.models.masked import MaskedDecoder
from ssl_jax.models.standard import standardise, unstandardise
from ssl_jax.models.vit import ViT, patchify, unpatchify

CAPTION = (
    "Evaluation images with random patches hidden, and the decoder's prediction of the hidden "
    "patches between the visible ones. Fine detail is blurred, because the squared error rewards "
    "the mean of all likely details."
)
NORMALIZED = (
    " The decoder predicts each patch relative to its mean and contrast, which are taken from the "
    "original here."
)


def make(
    encoder: ViT,
    run: Run,
    *,
    mask_ratio: float = 0.75,
    normalize_pixels: bool = True,
    decoder_dim: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
) -> Method:
    """MAE (arXiv 2111.06377, section 3): encodes a quarter of the patches and predicts the others.

    The loss is the mean squared error over the masked patches only. The decoder predicts the images
    as the encoder sees them: standardised by `encoder.mean` and `encoder.std`. Examples never meet.

    Args:
      encoder: a `vit.ViT`.
      run: one view.
      mask_ratio: fraction of the patches that are hidden, drawn anew for every image and step.
      normalize_pixels: predict each patch after subtracting its mean and dividing by its standard
        deviation.
      decoder_dim: width of the decoder's blocks.
      decoder_depth: number of decoder blocks.
      decoder_heads: attention heads of each decoder block.

    Raises:
      ValueError: if the encoder is not a ViT, the run does not have one view, or the mask leaves no
        patch to see or no patch to predict.
    """
    if not isinstance(encoder, ViT):
        raise ValueError(f"MAE encodes a part of an image's patches: it needs a ViT, not {encoder}")
    check_views(run, 1)
    side = run.seen["views"].shape[1] // encoder.patch_size
    patches = side**2
    visible = round(patches * (1 - mask_ratio))
    if not 0 < visible < patches:
        raise ValueError(f"mask_ratio {mask_ratio} leaves {visible} of {patches} patches visible")
    decoder = MaskedDecoder(
        patch_size=encoder.patch_size,
        width=decoder_dim,
        depth=decoder_depth,
        heads=decoder_heads,
        channels=run.seen["views"].shape[-1],
        dtype=encoder.dtype,
    )

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key)
        images = batch["views"][:, 0]
        order = jnp.tile(jnp.arange(patches)[None], (len(images), 1))
        tokens, encoder_variables = encoder.init_with_output(
            keys[0], images, True, order[:, :visible], method="tokens"
        )
        decoder_variables = decoder.init(keys[1], tokens, order, (side, side))
        params = {
            "encoder": encoder_variables["params"],
            "decoder": decoder_variables["params"],
        }
        return params, {"batch_stats": {}}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del extra
        images = batch["views"][:, 0]
        order = patch_order(key, batch["index"])
        tokens, pixels = predict(params, images, order)
        target = standardised_patches(images, pixels.shape)
        if normalize_pixels:
            mean, scale = patch_statistics(target)
            target = (target - mean) * scale
        error = jnp.square(pixels - target).mean(-1)
        masked = jnp.take_along_axis(error, order[:, visible:], axis=1)
        pooled = tokens[:, 0] if encoder.pool == "token" else tokens[:, 1:].mean(1)
        return {"error": masked.mean(1), "features": pooled[:, None]}, {}

    def patch_order(key: jax.Array, index: jax.Array) -> jax.Array:
        """Draws a permutation of the patches for each example [n]: [n, patches]."""
        keys = example_keys(key, index)
        return jax.vmap(lambda k: jax.random.permutation(k, patches))(keys)

    def predict(params: Tree, images: jax.Array, order: jax.Array) -> tuple[Any, Any]:
        """Returns tokens of the visible patches, and the predicted pixels of all patches."""
        tokens: Any = encoder.apply(
            {"params": params["encoder"]}, images, True, order[:, :visible], method="tokens"
        )
        return tokens, decoder.apply({"params": params["decoder"]}, tokens, order, (side, side))

    def standardised_patches(images: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Cuts the images, standardised as the encoder sees them, into patches of a shape."""
        x = standardise(images, encoder.mean, encoder.std)
        return patchify(x, encoder.patch_size).reshape(shape)

    def reconstructions(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Draws original, visible patches and prediction of each image: [n, 3, h, w, c]."""
        del extra
        order = patch_order(key, jnp.arange(len(images)))
        _, pixels = predict(params, images, order)
        if normalize_pixels:
            mean, scale = patch_statistics(standardised_patches(images, pixels.shape))
            pixels = pixels / scale + mean
        predicted = unstandardise(unpatchify(pixels, images.shape), encoder.mean, encoder.std)
        shape = pixels.shape
        original, pixels = (
            patchify(x, encoder.patch_size).reshape(shape) for x in (images, predicted)
        )
        is_visible = (jnp.argsort(order, axis=1) < visible)[..., None]
        rows = [original, jnp.where(is_visible, original, 0.5)]
        rows.append(jnp.where(is_visible, original, pixels))
        return jnp.stack([unpatchify(row, images.shape) for row in rows], axis=1).clip(0, 1)

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        return outputs["error"].mean(), (extra, {})

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        del extra
        return jnp.asarray(encoder.apply({"params": params["encoder"]}, images, False), jnp.float32)

    picture = Picture(
        "reconstructions",
        "Reconstructions",
        CAPTION + (NORMALIZED if normalize_pixels else ""),
        reconstructions,
        ("original", f"{1 - visible / patches:.0%} hidden", "prediction"),
    )
    return Method(init, encode, objective, features, pictures=(picture,))


def patch_statistics(patches: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns mean and inverse standard deviation [..., 1] of patches [..., pixels].

    The variance is unbiased and the epsilon is 1e-6, as in the authors' code.
    """
    variance = patches.var(-1, keepdims=True, ddof=1)
    return patches.mean(-1, keepdims=True), jax.lax.rsqrt(variance + 1e-6)
