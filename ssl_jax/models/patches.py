"""Grids of overlapping patches."""

import jax
import jax.numpy as jnp


def check_patches(patch: int, stride: int, norm: str) -> None:
    """Checks the fields of an encoder of patches.

    Args:
      patch: side of a patch in pixels; 0 means that there are no patches.
      stride: distance of neighbouring patches in pixels.
      norm: normalisation of the encoder.

    Raises:
      ValueError: if one of patch and stride is 0, a patch is smaller than the stride, or the norm
        is "batch". Batch statistics would tell a patch about the patches around it.
    """
    if not (patch == stride == 0 or 0 < stride <= patch):
        raise ValueError(
            f"patches of {patch} pixels with stride {stride}: set model.patch_stride to a number "
            "from 1 to model.patch, or both to 0 for whole images"
        )
    if patch and norm == "batch":
        raise ValueError(
            "batch normalisation would mix the patches of an image: with model.patch, set "
            "model.norm to layer or none"
        )


def grid_side(side: int, patch: int, stride: int) -> int:
    """Returns the number of patches along one side of an image.

    Pixels that do not fill another stride are left out at the right and at the bottom.

    Raises:
      ValueError: if the image is smaller than a patch.
    """
    if side < patch:
        raise ValueError(
            f"images with a side of {side} pixels are smaller than a patch of {patch} pixels: use "
            f"larger images (augment.size), or an encoder with a smaller model.patch"
        )
    return (side - patch) // stride + 1


def cut(images: jax.Array, patch: int, stride: int) -> jax.Array:
    """Cuts images [n, h, w, c] into patches [n, rows, columns, patch, patch, c].

    Raises:
      ValueError: as `grid_side`.
    """
    for axis in (1, 3):  # after the rows are cut, the pixels of a row lie on axis 3
        count = grid_side(images.shape[axis], patch, stride)
        slices = [
            jax.lax.slice_in_dim(images, i * stride, i * stride + patch, axis=axis)
            for i in range(count)
        ]
        images = jnp.stack(slices, axis=(axis + 1) // 2)
    return images
