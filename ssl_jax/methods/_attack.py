"""Adversarial images: projected gradient ascent on a loss, without labels (Kim et al. 2020)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.losses.softmax import normalise
from ssl_jax.methods._keys import example_keys


class Attack(NamedTuple):
    """Strength of an attack.

    Attributes:
      steps: steps of gradient ascent, at least 1.
      epsilon: largest change of a pixel, for pixels in [0, 1].
      step_size: change of a pixel in one step.
    """

    steps: int
    epsilon: float
    step_size: float

    def check(self) -> None:
        """Raises ValueError unless the attack can change an image."""
        if self.steps < 1:
            raise ValueError(f"attack_steps must be at least 1, got {self.steps}")
        for name in ("epsilon", "step_size"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"attack_{name} must be a finite number above 0, got {value}")


def perturb(
    loss: Callable[[jax.Array], jax.Array], images: jax.Array, noise: jax.Array, attack: Attack
) -> jax.Array:
    """Returns images near the given ones with a high loss; no gradient flows through the result.

    Each step moves every pixel by `step_size` in the direction of the sign of the loss's gradient.
    The image is then projected onto [0, 1] and onto the ball |pixel - original| <= epsilon. The
    projections are onto intervals that share the original pixel, so their order does not matter.

    Args:
      loss: images [b, h, w, c] -> scalar.
      images: [b, h, w, c] in [0, 1].
      noise: [b, h, w, c] in [-1, 1]; the ascent starts at images + epsilon * noise.
      attack: strength of the attack.

    Source: Madry et al. (arXiv 1706.06083), section 2.1.
    """
    images = jax.lax.stop_gradient(images)
    low = jnp.maximum(images - attack.epsilon, 0)
    high = jnp.minimum(images + attack.epsilon, 1)

    def step(_: int, x: jax.Array) -> jax.Array:
        x = x + attack.step_size * jnp.sign(jax.grad(loss)(x))
        return jnp.clip(x, low, high)

    start = jnp.clip(images + attack.epsilon * noise, low, high)
    return jax.lax.stop_gradient(jax.lax.fori_loop(0, attack.steps, step, start))


def start_noise(key: jax.Array, index: jax.Array, images: jax.Array) -> jax.Array:
    """Draws uniform noise in [-1, 1] for each example: [b, h, w, c], by its index."""
    keys = example_keys(key, index)
    shape, dtype = images.shape[1:], images.dtype
    return jax.vmap(lambda k: jax.random.uniform(k, shape, dtype, -1, 1))(keys)


def instance_loss(
    attacked: jax.Array, target: jax.Array, *, temperature: float, group: int
) -> jax.Array:
    """Returns the sum over attacked views of the cross-entropy of the other view of their image.

    An attacked view is compared with the other views and the attacked views of the images in its
    group. The gradient flows only through the attacked view in the role of the anchor, so that an
    image is changed to lose its own partner, not to disturb others.

    Args:
      attacked: embeddings [b, d], any length.
      target: embeddings [b, d] of the other views; no gradient.
      temperature: positive.
      group: number of consecutive examples that are compared with each other; divides b.

    Returns:
      Scalar in nats, float32 or wider.

    Source: Kim et al. (arXiv 2006.07589), section 3; the authors' code compares the examples of one
    device and stops the gradient of the compared views.
    """
    anchor, other = (normalise(z).reshape(-1, group, z.shape[-1]) for z in (attacked, target))
    others = jax.lax.stop_gradient(jnp.stack([other, anchor], axis=2))  # [groups, group, 2, d]
    logits = jnp.einsum("gid,gjvd->gijv", anchor, others) / temperature
    own = jnp.eye(group, dtype=bool)[None, :, :, None] & jnp.array([False, True])[None, None, None]
    logits = jnp.where(own, -jnp.inf, logits)
    positive = (anchor * jax.lax.stop_gradient(other)).sum(-1) / temperature
    return (jax.nn.logsumexp(logits, axis=(2, 3)) - positive).sum()
