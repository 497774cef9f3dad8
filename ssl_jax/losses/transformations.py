"""Losses of methods that recognise a transformation of an image, whose label is known."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from optax.losses import softmax_cross_entropy_with_integer_labels

from ssl_jax.losses.softmax import Metrics, normalise


def classification(logits: jax.Array, label: jax.Array) -> tuple[jax.Array, Metrics]:
    """Cross-entropy of classes that are equally frequent.

    Args:
      logits: [..., k] in any floating-point dtype.
      label: int [...], in [0, k).

    Returns:
      (mean loss in nats, metrics). Metrics, without gradient: "pretext_accuracy", and
      "pretext_chance", the accuracy 1 / k of a guess.

    Raises:
      ValueError: if the shapes do not fit.
    """
    if logits.shape[:-1] != label.shape:
        raise ValueError(
            f"logits {logits.shape} and label {label.shape} do not fit: [..., k], [...]"
        )
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    loss = softmax_cross_entropy_with_integer_labels(logits, label).mean()
    accuracy = (logits.argmax(-1) == label).mean(dtype=logits.dtype)
    chance = jnp.asarray(1 / logits.shape[-1], logits.dtype)
    return loss, {"pretext_accuracy": accuracy, "pretext_chance": chance}


def direction(prediction: jax.Array, angle: jax.Array) -> tuple[jax.Array, Metrics]:
    """Returns one minus the cosine between predicted and true angle.

    The network predicts a vector, whose direction is the angle. Its length has no effect. Unlike
    the squared error of an angle, the loss does not jump between 359 and 0 degrees.

    Args:
      prediction: [..., 2], multiples of the cosine and sine of the predicted angle.
      angle: [...], true angle in radians, uniformly distributed over the circle.

    Returns:
      (mean loss in [0, 2], metrics). Metrics, without gradient: "pretext_error", the mean absolute
      difference of the angles in degrees, and "pretext_error_chance", the 90 degrees of a guess.

    Raises:
      ValueError: if the shapes do not fit.

    Source: Beyer et al., Biternion nets (GCPR 2015), section 3.2: unit vectors and cosine loss.
    """
    if prediction.shape != (*angle.shape, 2):
        raise ValueError(
            f"prediction {prediction.shape} and angle {angle.shape} do not fit: [..., 2], [...]"
        )
    unit = normalise(prediction)
    true = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    loss = 1 - (unit * true).sum(-1).mean()
    error = lax.stop_gradient(difference(to_angle(prediction), angle)).mean()
    chance = jnp.asarray(90, error.dtype)
    return loss, {"pretext_error": jnp.rad2deg(error), "pretext_error_chance": chance}


def to_angle(prediction: jax.Array) -> jax.Array:
    """Returns the angle in [-pi, pi] of vectors [..., 2]."""
    return jnp.arctan2(prediction[..., 1], prediction[..., 0])


def difference(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the absolute difference of two angles, in [0, pi]."""
    return jnp.abs((a - b + math.pi) % (2 * math.pi) - math.pi)
