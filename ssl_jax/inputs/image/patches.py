"""Augmentation of the patches of an image, each by its own random numbers, on the device.

It keeps a method that compares patches from solving its task by the colour of the whole image, by
its lens, or by lines that go on in the next patch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.inputs.image import device
from ssl_jax.inputs.image.views import ORDERS, Decisions, View, factors

GREY = 0.5  # value of missing pixels and dropped channels, about the mean of natural images
# Strengths of Inception's colour distortion (Szegedy et al. 2014), as TensorFlow's example of
# Inception has them: brightness 32/255, contrast and saturation 0.5 to 1.5, hue 0.2. Inception adds
# the brightness; here it is a factor, as in all views.
_INCEPTION = View(brightness=32 / 255, contrast=0.5, saturation=0.5, hue=0.2)
_DRAWS = 11


class PatchChanges(NamedTuple):
    """Random changes of a patch. They are drawn anew for every patch."""

    crop: int = 0
    """Pixels by which the patch is cropped at a random place. Grey pixels around it restore its
    size."""

    jitter: float = 0.0
    """Probability of a change of brightness, contrast, saturation and hue."""

    grayscale: float = 0.0
    """Probability of grey."""

    color_drop: float = 0.0
    """Probability that one random channel remains, and the other two are grey."""

    def check(self, patch: int, channels: int) -> None:
        """Checks the changes against patches of `patch` pixels.

        Raises:
          ValueError: if the crop leaves no pixel, a probability is not in [0, 1], or changes of
            colour are asked of images without colour.
        """
        if not 0 <= self.crop < patch:
            raise ValueError(f"patch_crop must be in [0, {patch}), the patch's side: {self.crop}")
        chances = self._asdict() | {"crop": 0}
        if wrong := {k: v for k, v in chances.items() if not 0 <= v <= 1}:
            raise ValueError(f"probabilities must be in [0, 1], got {wrong}")
        if channels != 3 and any(chances.values()):
            used = [f"patch_{k}" for k, v in chances.items() if v]
            raise ValueError(
                f"{', '.join(used)} need RGB images, but the images have {channels} channel(s): "
                "set them to 0, or data.channels to 3"
            )


def augment(
    patches: jax.Array, changes: PatchChanges, key: jax.Array, index: jax.Array
) -> jax.Array:
    """Changes every patch of every image.

    Args:
      patches: [n, rows, columns, s, s, c] in [0, 1].
      changes: what to change; changes of probability 0 are not compiled.
      key: random key of the step.
      index: int32 [n], numbers of the images, which decide their random numbers.
    """
    if not any(changes):
        return patches
    shape = patches.shape[1:3]

    def image(patches: jax.Array, index: jax.Array) -> jax.Array:
        draws = jax.random.uniform(jax.random.fold_in(key, index), (*shape, _DRAWS), jnp.float32)
        return jax.vmap(jax.vmap(lambda x, u: _change(x, u, changes)))(patches, draws)

    return jax.vmap(image)(patches, index)


def _change(x: jax.Array, u: jax.Array, changes: PatchChanges) -> jax.Array:
    """Changes one patch [s, s, c] by uniform random numbers u [_DRAWS]."""
    view = _INCEPTION._replace(jitter=changes.jitter, grayscale=changes.grayscale)
    if changes.jitter or changes.grayscale:
        x = device.recolour(x, _decisions(u.astype(x.dtype), view), view)
    if changes.color_drop:
        keeps = jnp.arange(3) == jnp.floor(3 * u[7])
        x = jnp.where(((u[8] >= changes.color_drop) | keeps)[None, None], x, GREY)
    if changes.crop:
        x = _crop(x, u[9:11], changes.crop)
    return x


def _decisions(u: jax.Array, view: View) -> Decisions:
    def factor(i: int, strength: float) -> jax.Array:
        low, high = factors(strength)
        return low + (high - low) * u[i]

    return Decisions(
        jitter=u[0] < view.jitter,
        order=jnp.floor(len(ORDERS) * u[1]),
        brightness=factor(2, view.brightness),
        contrast=factor(3, view.contrast),
        saturation=factor(4, view.saturation),
        hue=view.hue * (2 * u[5] - 1),
        grayscale=u[6] < view.grayscale,
    )


def _crop(x: jax.Array, u: jax.Array, pixels: int) -> jax.Array:
    """Moves a random crop of [s, s, c], `pixels` smaller, to the middle of a grey patch."""
    side = x.shape[0] - pixels
    top, left = jnp.floor((pixels + 1) * u).astype(jnp.int32)
    crop = jax.lax.dynamic_slice(x, (top, left, jnp.zeros_like(top)), (side, side, x.shape[2]))
    before = pixels // 2
    edge = (before, pixels - before)
    return jnp.pad(crop, (edge, edge, (0, 0)), constant_values=GREY)
