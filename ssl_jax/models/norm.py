"""Normalisation: of batches, in groups that are positions in the global batch, and of layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

EPSILON = 1e-5
DECAY = 0.9  # torch calls this momentum 0.1


class BatchNorm(nn.Module):
    """Batch normalisation over all rows, or over each contiguous group of rows.

    Parameters "scale" and "bias" and running statistics "mean" and "var" (collection "batch_stats")
    are float32 [c], whatever `dtype` is; float64 rows give float64 statistics. Under plain jit, a
    batch sharded on its rows is normalised as one batch. Groups that lie within the rows of one
    device cost no communication.

    Training replaces each running statistic by 0.9 old + 0.1 new. New is the mean over groups and
    views of their means or biased variances (torch keeps the unbiased variance).

    Attributes:
      group: rows that share statistics, counting all views; 0 = the global batch.
      views: views that do *not* share statistics. Row i is view i % views of example i // views.
      use_scale: learn a scale.
      use_bias: learn a bias.
      scale_init: initialiser of the scale; zeros makes a residual branch start as zero ("zero
        gamma").
      dtype: dtype of the output.

    Source: Ioffe and Szegedy (arXiv 1502.03167), algorithm 1; epsilon and decay from SimCLR's code.
    """

    group: int = 0
    views: int = 1
    use_scale: bool = True
    use_bias: bool = True
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalises x [n, ..., c] over all axes but the last.

        Raises:
          ValueError: in training, if `group` does not divide the rows or `views` does not divide
            the group.
        """
        shape, features = x.shape, x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        # Sums are taken around the running mean: one pass over the activations, and no cancellation
        # in E[x²] - E[x]² once the running mean is close to the mean. The result is the same.
        x = x - _along_last_axis(mean.value, x.ndim)
        variance = _along_last_axis(var.value, x.ndim)
        if train:
            # Initialisation sees two images, fewer than a group, and only needs their shapes.
            split = (1, len(x), 1) if self.is_initializing() else self._split(len(x))
            x, offset, variance = _centre(x, *split)
            if not self.is_initializing():
                mean.value = mean.value + (1 - DECAY) * _mean(offset)
                var.value = DECAY * var.value + (1 - DECAY) * _mean(variance)
        multiplier = jax.lax.rsqrt(variance + EPSILON)
        if self.use_scale:
            scale = self.param("scale", self.scale_init, features, jnp.float32)
            multiplier = multiplier * _along_last_axis(scale, x.ndim)
        x = (x * multiplier).reshape(shape)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, features, jnp.float32)
            x = x + _along_last_axis(bias, x.ndim)
        return x.astype(self.dtype)

    def _split(self, rows: int) -> tuple[int, int, int]:
        """Divides n rows into (groups, examples per group, views)."""
        group = self.group or rows
        if group < 0 or rows % group or group % self.views:
            raise ValueError(
                f"batch normalisation with groups of {group} rows and {self.views} separately "
                f"normalised view(s): the group must divide the {rows} rows of the batch "
                "(examples x views), and the views must divide the group"
            )
        return rows // group, group // self.views, self.views


class LayerNorm(nn.Module):
    """Normalises each row over positions and channels, so that rows never depend on each other.

    Parameters "scale" and "bias" are float32 [c], as those of `BatchNorm`.

    Attributes:
      normalise: False keeps only the learned scale and bias.
      scale_init: initialiser of the scale.
      dtype: dtype of the output.

    Source: Ba, Kiros and Hinton (arXiv 1607.06450), with one scale and bias per channel. Without
    normalisation and with "zero gamma": SkipInit (De and Smith, arXiv 2002.10444), per channel.
    """

    normalise: bool = True
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalises x [n, ..., c] over all axes but the first."""
        del train
        features = x.shape[-1:]
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.normalise:
            axes = tuple(range(1, x.ndim))
            x = x - x.mean(axes, keepdims=True)
            x = x * jax.lax.rsqrt(jnp.square(x).mean(axes, keepdims=True) + EPSILON)
        scale = self.param("scale", self.scale_init, features, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, features, jnp.float32)
        x = x * _along_last_axis(scale, x.ndim) + _along_last_axis(bias, x.ndim)
        return x.astype(self.dtype)


def _centre(
    x: jax.Array, groups: int, examples: int, views: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Centres x [n, ..., c] within each group and view.

    Returns:
      (x [groups, examples, views, ..., c] minus its mean over examples and positions, that mean,
      biased variance). Mean and variance are [groups, 1, views, 1.., c].
    """
    x = x.reshape(groups, examples, views, *x.shape[1:])
    axes = (1, *range(3, x.ndim - 1))
    mean = x.mean(axes, keepdims=True)
    variance = jnp.square(x).mean(axes, keepdims=True) - jnp.square(mean)
    return x - mean, mean, jnp.maximum(variance, 0)


def _along_last_axis(vector: jax.Array, ndim: int) -> jax.Array:
    """Reshapes a vector [c] to broadcast against the last of `ndim` axes."""
    return vector.reshape((1,) * (ndim - 1) + vector.shape)


def _mean(statistic: jax.Array) -> jax.Array:
    """Averages [..., c] over groups and views to [c]."""
    return statistic.reshape(-1, statistic.shape[-1]).mean(0)
