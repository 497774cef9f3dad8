"""Denoising autoencoders, stacked layer by layer or with a deep encoder (Vincent et al. 2010)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.losses.reconstruction import RECONSTRUCTIONS
from ssl_jax.methods import Batch, Method, Picture, Run, Tree
from ssl_jax.methods._corruption import check_noise
from ssl_jax.methods._denoising import Criterion, Deep, Stack
from ssl_jax.methods._filters import SCALE, largest_filters
from ssl_jax.methods._keys import example_keys
from ssl_jax.methods._reconstruction import mean_squared_error, reconstruction_metrics
from ssl_jax.methods._views import check_views
from ssl_jax.models.sdae import SDAE

CAPTION = (
    "Evaluation images, the images with noise, and what the whole network makes of the latter. It "
    "never sees the original."
)
FILTERS = "Each filter is the weights between the pixels and one unit of the first layer. " + SCALE


def make(
    encoder: nn.Module,
    run: Run,
    *,
    noise: str = "masking",
    noise_level: float = 0.25,
    loss: str = "cross_entropy",
    corrupted_weight: float = 1.0,
    clean_weight: float = 1.0,
    tied: bool = True,
    end_to_end: bool = True,
    decoder_width: int = 64,
) -> Method:
    """Denoising autoencoder: reconstructs images from corrupted copies (JMLR 11, 2010).

    With the encoder "sdae", layers are stacked (section 3.5). The steps of the run are divided
    equally among stages. In each stage one layer learns to reconstruct its clean input, the code
    that the finished layers below compute from clean images, from a corrupted copy. In a last
    stage, all layers learn together to reconstruct images from corrupted images. Only the layers of
    a stage change in its steps. In the paper, supervised training follows instead of the last
    stage.

    Every other encoder, such as a ResNet, learns at once, and a convolutional decoder reconstructs
    images from its features.

    Images and codes are in [0, 1], and so are the outputs of all decoders, which end in sigmoid
    units. The loss is the mean over images of the error summed over components. Features of the
    online probe are those of corrupted inputs; evaluation shows clean images. Metrics:
    "reconstruction_error", the mean squared error per pixel of images decoded by all layers down
    from the present one; "reconstruction_chance", that of the batch's mean image; "stage" of a
    stack, counted from 0.

    Args:
      encoder: `sdae.SDAE`, or a linen module (images [n, h, w, c], train) -> [n, f] with an
        attribute `dtype`.
      run: one view.
      noise: "masking" sets components to 0, "salt_and_pepper" to 0 or 1, "gaussian" adds noise.
      noise_level: probability that a component is corrupted; standard deviation of gaussian noise.
      loss: "cross_entropy" or "squared_error".
      corrupted_weight: alpha, weight of the error in corrupted components.
      clean_weight: beta, weight of the error in all others. Gaussian noise corrupts all components.
      tied: layers of a stack decode with the transposed weights of the encoder.
      end_to_end: the last stage of a stack trains all layers together.
      decoder_width: channels of the last layers of the decoder behind other encoders.

    Raises:
      ValueError: if the run does not have one view, noise or loss are unknown, a number is out of
        its range, weights differ for gaussian noise, or a stack has more stages than steps.
    """
    check_views(run, 1)
    check_noise(noise, noise_level)
    if loss not in RECONSTRUCTIONS:
        raise ValueError(f"loss must be one of {', '.join(RECONSTRUCTIONS)}; got {loss!r}")
    weights = corrupted_weight, clean_weight
    if min(weights) < 0 or not max(weights) > 0:
        raise ValueError(
            "corrupted_weight and clean_weight must be at least 0, and one of them above 0; got "
            f"{corrupted_weight} and {clean_weight}"
        )
    if noise == "gaussian" and corrupted_weight != clean_weight:
        raise ValueError(
            "gaussian noise corrupts every component: set clean_weight to corrupted_weight, or "
            "choose another noise"
        )
    criterion = Criterion(noise, noise_level, loss, corrupted_weight, clean_weight)
    network: Stack | Deep
    if isinstance(encoder, SDAE):
        network = Stack(encoder, criterion, run, tied=tied, end_to_end=end_to_end)
    else:
        network = Deep(encoder, criterion, run, decoder_width=decoder_width)

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        keys = example_keys(key, batch["index"])
        images = batch["views"][:, 0]
        denoised, stats = network.train(params, extra, images, keys)
        outputs = {
            "cost": denoised.cost,
            "error": mean_squared_error(images, denoised.images),
            "images": images,
            "features": denoised.features[:, None],
        }
        return outputs, stats

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        metrics = reconstruction_metrics(outputs["error"], outputs["images"])
        if "stage" in extra:
            metrics["stage"] = extra["stage"].astype(jnp.float32)
        return outputs["cost"].mean(), (extra, metrics)

    def after_update(params: Tree, extra: Tree, stats: Tree, step: jax.Array) -> Tree:
        del params
        if isinstance(network, Stack):
            return {"stage": network.stage(step + 1)}
        return {"batch_stats": stats}

    def reconstructions(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Draws original, corrupted image and reconstruction of each image: [n, 3, h, w, c]."""
        keys = jax.random.split(key, len(images))
        noisy, _ = criterion.corrupt(keys, images)
        columns = [images, noisy, network.reconstruct(params, extra, noisy)]
        return jnp.stack(columns, axis=1).clip(0, 1)

    def filters(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Draws the largest filters of the first layer: [rows, columns, h, w, c]."""
        del extra, key
        kernel = jnp.moveaxis(params["encoder"]["layer0"]["kernel"], -1, 0)
        return largest_filters(
            kernel if kernel.ndim == 4 else kernel.reshape(-1, *images.shape[1:])
        )

    columns = ("original", f"{noise.replace('_', ' ')} noise", "reconstruction")
    pictures = [Picture("reconstructions", "Reconstructions", CAPTION, reconstructions, columns)]
    if isinstance(network, Stack):
        pictures.append(Picture("filters", "Filters", FILTERS, filters))
    return Method(
        network.init,
        encode,
        objective,
        network.features,
        after_update,
        pictures=tuple(pictures),
        turns=network.turns,
    )
