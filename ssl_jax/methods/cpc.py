"""CPC on images: contrastive predictive coding (van den Oord et al. 2018; Hénaff et al. 2020)."""

from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.inputs.image.patches import PatchChanges, augment
from ssl_jax.losses import predictive_info_nce
from ssl_jax.methods import Batch, Method, Run, Tree
from ssl_jax.methods._views import check_views
from ssl_jax.models.context import DIRECTIONS, GridPredictor, positives
from ssl_jax.models.patches import cut, grid_side
from ssl_jax.models.resnet import ResNet


def make(
    encoder: ResNet,
    run: Run,
    *,
    directions: int = 4,
    first_step: int = 3,
    steps: int = 1,
    target_dim: int = 64,
    scale: float = 0.1,
    context_dim: int = 256,
    context_depth: int = 5,
    patch_crop: int = 0,
    patch_jitter: float = 0.0,
    patch_grayscale: float = 0.0,
    patch_color_drop: float = 0.0,
) -> Method:
    """CPC v1 (arXiv 1807.03748, section 3.2) and v2 (arXiv 1905.09272, section 3).

    An image is cut into a grid of overlapping patches, and each patch is encoded by itself. A
    masked convolutional network reads the encodings row by row and gives every patch a context,
    which knows only the rows read so far. From the context, one linear map per step predicts the
    encodings of the patches in later rows. The loss is InfoNCE of the predicted patch among all
    patches of the global batch (`losses.predictive_info_nce`). All directions share the encodings.

    Features are the mean of the encodings of all patches. The encoder does the cutting:
    `model.patch`, `model.patch_stride`. Defaults are those of v2's pseudo-code.

    Args:
      encoder: a `resnet.ResNet` with patches.
      run: one view.
      directions: directions of reading, the first of down, up, right and left. CPC v1 has 1,
        CPC v2 has 4. Each has its own context network.
      first_step: distance in rows from a context to the first row that it predicts. Rows nearer
        than a patch's side overlap the context.
      steps: largest number of rows that a context predicts, with one linear map each.
      target_dim: width in which predictions and patches are compared; 0 compares with the
        encodings, as in v1.
      scale: factor of the scores.
      context_dim: channels inside the blocks of the context network.
      context_depth: blocks of the context network.
      patch_crop: pixels by which each patch is cropped at a random place; v1: 4.
      patch_jitter: probability of a change of a patch's colours.
      patch_grayscale: probability that a patch becomes grey.
      patch_color_drop: probability that a patch keeps only one of its three colour channels.

    Raises:
      ValueError: if the encoder is not a ResNet with patches, the run does not have one view, the
        grid has no row to predict, or a hyperparameter is out of range.
    """
    if not isinstance(encoder, ResNet) or not encoder.patch:
        raise ValueError(
            "CPC compares the patches of an image: it needs a ResNet with patches. Set model.patch "
            "and model.patch_stride"
        )
    check_views(run, 1)
    side = _grid(run, encoder)
    if not 1 <= directions <= len(DIRECTIONS):
        raise ValueError(f"directions must be 1 to {len(DIRECTIONS)}, got {directions}")
    if not 1 <= first_step < side or steps < 1:
        raise ValueError(
            f"method.first_step {first_step} with {steps} step(s) predicts no row of a grid of "
            f"{side} x {side} patches: both must be at least 1, and the grid must have more than "
            f"first_step rows. Set augment.size to {_smallest(encoder, first_step)} or more, or "
            "smaller model.patch and model.patch_stride"
        )
    if min(target_dim, context_depth) < 0 or context_dim < 1:
        raise ValueError(
            "target_dim and context_depth must be at least 0, and context_dim at least 1; got "
            f"{target_dim}, {context_depth} and {context_dim}"
        )
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    changes = PatchChanges(patch_crop, patch_jitter, patch_grayscale, patch_color_drop)
    changes.check(encoder.patch, run.seen["views"].shape[-1])
    target = positives(side, directions, first_step, steps)
    one_patch = encoder.clone(patch=0, patch_stride=0)
    predictor = GridPredictor(
        directions, first_step, steps, target_dim, context_dim, context_depth, encoder.dtype
    )

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key)
        grid = encoder.clone(pool="none")
        z, variables = grid.init_with_output(keys[0], batch["views"][:2, 0], True)
        return {
            "encoder": variables["params"],
            "predictor": predictor.init(keys[1], z)["params"],
        }, {"batch_stats": {}}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del extra
        patches = cut(batch["views"][:, 0], encoder.patch, encoder.patch_stride)
        patches = augment(patches, changes, key, batch["index"])
        n, size = len(patches), patches.shape[3:]
        rows = patches.reshape(n * side * side, *size)
        z: Any = one_patch.apply({"params": params["encoder"]}, rows, True)
        z = z.reshape(n, side, side, z.shape[-1])
        predictions, targets = predictor.apply({"params": params["predictor"]}, z)
        outputs = {"predictions": predictions, "targets": targets}
        return outputs | {"features": z.mean((1, 2))[:, None]}, {}

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        value, metrics = predictive_info_nce(
            outputs["predictions"], outputs["targets"], target, scale=scale
        )
        return value, (extra, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        del extra
        return jnp.asarray(encoder.apply({"params": params["encoder"]}, images, False), jnp.float32)

    return Method(init, encode, objective, features)


def _smallest(encoder: ResNet, first_step: int) -> int:
    """Returns the side of the smallest view in which a row is predicted."""
    return encoder.patch + max(first_step, 1) * encoder.patch_stride


def _grid(run: Run, encoder: ResNet) -> int:
    """Returns the number of patches along a side of a view."""
    return grid_side(run.seen["views"].shape[1], encoder.patch, encoder.patch_stride)
