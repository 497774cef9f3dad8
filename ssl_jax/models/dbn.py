"""Restricted Boltzmann machines (RBM), and deep belief networks (DBN), which are stacks of them.

A machine is a dict of weights: "kernel" [d, f], "hidden_bias" [f], "visible_bias" [d]. Visible
units are "bernoulli", or "gaussian" with unit variance given the hidden units. Hidden units are
Bernoulli.

Sources: Hinton (Neural Computation 2002, "Training products of experts by minimizing contrastive
divergence"); Hinton, "A practical guide to training restricted Boltzmann machines" (UTML TR
2010-003), sections 2, 3 and 13.2 for Gaussian units.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssl_jax.models.options import VISIBLE

Machine = dict[str, jax.Array]
EPSILON = 1e-3  # added to a pixel standard deviation in [0, 1]: flat images stay flat


class RBM(nn.Module):
    """Weights of one machine; computes the probabilities of its hidden units.

    Attributes:
      width: number of hidden units, f.
      dtype: dtype of the product with the kernel; parameters are float32.
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, v: jax.Array) -> jax.Array:
        """Visible units [n, d] -> probabilities of the hidden units [n, f], in float32 or wider."""
        d, f = v.shape[-1], self.width
        # Standard deviation 0.01 as in section 8 of the guide.
        machine = {
            "kernel": self.param("kernel", nn.initializers.normal(0.01), (d, f), jnp.float32),
            "hidden_bias": self.param("hidden_bias", nn.initializers.zeros, (f,), jnp.float32),
            "visible_bias": self.param("visible_bias", nn.initializers.zeros, (d,), jnp.float32),
        }
        return hidden(machine, v, self.dtype)


class DBN(nn.Module):
    """Deep belief network as an encoder: a stack of restricted Boltzmann machines.

    The visible values of a machine are the hidden probabilities of the machine below.

    Attributes:
      widths: number of hidden units of each machine, the lowest first.
      visible: "bernoulli" or "gaussian". With "bernoulli", a pixel is the probability that its unit
        is on. With "gaussian", each image is standardised by its own mean and standard deviation,
        then divided by `sigma`.
      sigma: standard deviation of a Gaussian unit given the hidden units, relative to the standard
        deviation of the image.
      dtype: dtype of the products with kernels; parameters are float32.

    Sources: Hinton, Osindero and Teh (Neural Computation 2006), sections 4 and 5. Probabilities
    instead of sampled states: Hinton and Salakhutdinov (Science 2006).
    """

    widths: tuple[int, ...] = (1024, 1024)
    visible: str = "gaussian"
    sigma: float = 1.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Images [n, h, w, c] in [0, 1] -> probabilities of all hidden units, [n, sum of widths].

        Raises:
          ValueError: if the kind of visible units is unknown or `widths` is empty.
        """
        del train
        if self.visible not in VISIBLE or not self.widths:
            raise ValueError(
                f"DBN with widths {self.widths} and visible {self.visible!r}: widths must not be "
                f"empty and visible must be one of {VISIBLE}"
            )
        x = pixels(images, self.visible, self.sigma)
        layers = []
        for i, width in enumerate(self.widths):
            x = RBM(width, self.dtype, name=f"rbm{i}")(x)
            layers.append(x)
        return jnp.concatenate(layers, axis=-1)


def pixels(images: jax.Array, visible: str, sigma: float) -> jax.Array:
    """Converts images [n, h, w, c] to values of visible units, [n, h * w * c]."""
    v = images.reshape(images.shape[0], -1)
    if visible == "bernoulli":
        return v
    deviation = v.std(-1, keepdims=True) + EPSILON
    return (v - v.mean(-1, keepdims=True)) / (sigma * deviation)


def hidden_logits(machine: Machine, v: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Log odds [n, f] of the hidden units given visible units [n, d], in float32 or wider."""
    return _product(v, machine["kernel"], dtype) + machine["hidden_bias"][None]


def hidden(machine: Machine, v: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Probabilities [n, f] of the hidden units given visible units [n, d], in float32 or wider."""
    return nn.sigmoid(hidden_logits(machine, v, dtype))


def expected(machine: Machine, h: jax.Array, visible: str, dtype: DTypeLike) -> jax.Array:
    """Expectation [n, d] of the visible units given hidden units [n, f], in float32 or wider."""
    x = _product(h, machine["kernel"].T, dtype) + machine["visible_bias"][None]
    return nn.sigmoid(x) if visible == "bernoulli" else x


def free_energy(machine: Machine, v: jax.Array, visible: str, dtype: DTypeLike) -> jax.Array:
    """Free energy [n] of visible units v [n, d].

    The free energy is -log of the sum over all hidden states of exp(-energy). With Bernoulli units
    the energy is -v.a - h.c - v.W h. With Gaussian units |v - a|^2 / 2 replaces -v.a.
    """
    bias = machine["visible_bias"]
    # Not a matrix product, which accelerators would round to bfloat16.
    visible_energy = -(v * bias[None]) if visible == "bernoulli" else jnp.square(v - bias[None]) / 2
    return visible_energy.sum(-1) - nn.softplus(hidden_logits(machine, v, dtype)).sum(-1)


def gibbs(
    machine: Machine, keys: jax.Array, v: jax.Array, visible: str, dtype: DTypeLike
) -> jax.Array:
    """Takes one Gibbs step: samples the hidden units given visible units, then new visible units.

    Args:
      machine: weights.
      keys: one key per row, [n], so that the chain of a row does not depend on its neighbours.
      v: visible units [n, d].
      visible: "bernoulli" or "gaussian".
      dtype: dtype of the products with the kernel.

    Returns:
      New visible units [n, d], in float32 or wider.
    """
    halves = jax.vmap(jax.random.split)(keys)
    p = hidden(machine, v, dtype)
    h = jax.vmap(jax.random.bernoulli)(halves[:, 0], p).astype(p.dtype)
    mean = expected(machine, h, visible, dtype)
    if visible == "bernoulli":
        return jax.vmap(jax.random.bernoulli)(halves[:, 1], mean).astype(mean.dtype)
    normal = jax.vmap(lambda k: jax.random.normal(k, mean.shape[1:], mean.dtype))
    return mean + normal(halves[:, 1])


def _product(x: jax.Array, kernel: jax.Array, dtype: DTypeLike) -> jax.Array:
    wide_dtype = jnp.promote_types(dtype, jnp.float32)
    return jnp.matmul(x.astype(dtype), kernel.astype(dtype), preferred_element_type=wide_dtype)
