"""Targets of predictions at every place of an image: bins, or values.

`compare` works per example, `metrics` and the mean of "error" over the whole batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.losses import bins

Outputs = dict[str, jax.Array]


class BinTarget(NamedTuple):
    """The prediction is a distribution over bins; the loss is the cross-entropy with the nearest.

    Attributes:
      centres: [q, d], centres of the bins.
      temperature: temperature of `bins.annealed_mean` in `decode`.
    """

    centres: np.ndarray
    temperature: float

    @property
    def outputs(self) -> int:
        """Channels of the prediction."""
        return len(self.centres)

    def compare(self, logits: jax.Array, truth: jax.Array) -> Outputs:
        """Compares logits [n, h, w, q] with channels [n, h, w, d].

        Returns:
          "error" [n] in nats; "correct" [n], share of places whose likeliest bin is the nearest;
          "shares" [n, q], share of places in each bin.
        """
        nearest = bins.squared_distances(truth, self.centres).argmin(-1)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), nearest[..., None], axis=-1)
        return {
            "error": -chosen.mean((1, 2, 3)),
            "correct": (logits.argmax(-1) == nearest).mean((1, 2), dtype=logits.dtype),
            "shares": bins.bin_shares(nearest, self.outputs, logits.dtype),
        }

    def metrics(self, outputs: Outputs) -> dict[str, jax.Array]:
        """Returns the accuracy, and that of always guessing the batch's most frequent bin."""
        return {
            "pretext_accuracy": outputs["correct"].mean(),
            "pretext_chance": outputs["shares"].mean(0).max(),
        }

    def decode(self, logits: jax.Array) -> jax.Array:
        """Returns the predicted channels [n, h, w, d]."""
        return bins.annealed_mean(logits, self.centres, temperature=self.temperature)


class ValueTarget(NamedTuple):
    """The prediction is the channels themselves; the loss is half of the squared error.

    Attributes:
      outputs: number of channels.
    """

    outputs: int

    def compare(self, predicted: jax.Array, truth: jax.Array) -> Outputs:
        """Compares predicted with true channels, both [n, h, w, d].

        Returns:
          "error" [n], half of the squared error, averaged over places and channels; "mean" and
          "square" [n, d], means of the true channels and of their squares.
        """
        return {
            "error": jnp.square(predicted - truth).mean((1, 2, 3)) / 2,
            "mean": truth.mean((1, 2)),
            "square": jnp.square(truth).mean((1, 2)),
        }

    def metrics(self, outputs: Outputs) -> dict[str, jax.Array]:
        """Returns the error, and that of the best constant, the batch's mean of each channel."""
        variance = outputs["square"].mean(0) - jnp.square(outputs["mean"].mean(0))
        return {
            "pretext_error": outputs["error"].mean(),
            "pretext_error_chance": variance.mean() / 2,
        }

    def decode(self, predicted: jax.Array) -> jax.Array:
        """Returns the prediction unchanged."""
        return predicted
