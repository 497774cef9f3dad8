"""Restricted Boltzmann machines, and the deep belief network that is a stack of them.

A machine is a dict of weights: "kernel" [d, f], "hidden_bias" [f], "visible_bias" [d]. Visible
units are "bernoulli", or "gaussian" of unit variance given the hidden; hidden ones are Bernoulli.
Sources: Hinton (Neural Computation 2002, "Training products of experts by minimizing contrastive
divergence"); Hinton, "A practical guide to training restricted Boltzmann machines" (UTML TR
2010-003), sections 2, 3 and 13.2 for Gaussian units.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssl_jax.models import VISIBLE

Machine = dict[str, jax.Array]
EPSILON = 1e-3  # of a pixel's range: flat images stay flat


class RBM(nn.Module):
    """The weights of one machine, and the way up: what its hidden units say of what they see.

    Attributes:
      width: hidden units, f.
      dtype: of the product with the kernel; parameters are float32.
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, v: jax.Array) -> jax.Array:
        """Visible [n, d] to the probabilities of the hidden units, [n, f] float32 at least."""
        d, f = v.shape[-1], self.width
        # N(0, 0.01^2): section 8 of the guide.
        machine = {
            "kernel": self.param("kernel", nn.initializers.normal(0.01), (d, f), jnp.float32),
            "hidden_bias": self.param("hidden_bias", nn.initializers.zeros, (f,), jnp.float32),
            "visible_bias": self.param("visible_bias", nn.initializers.zeros, (d,), jnp.float32),
        }
        return hidden(machine, v, self.dtype)


class DBN(nn.Module):
    """A deep belief network as an encoder: each machine sees the probabilities of the one below.

    Attributes:
      widths: hidden units of the machines, the lowest first.
      visible: "bernoulli": a pixel is the probability of being on. "gaussian": pixels are real,
        each image less its mean, over its standard deviation and `sigma`.
      sigma: standard deviation of a Gaussian unit given the hidden, in an image's own.
      dtype: of the products with kernels; parameters are float32.

    Sources: Hinton, Osindero and Teh (Neural Computation 2006), sections 4 and 5; probabilities in
    the place of states: Hinton and Salakhutdinov (Science 2006).
    """

    widths: tuple[int, ...] = (1024, 1024)
    visible: str = "gaussian"
    sigma: float = 1.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[n, h, w, c] in [0, 1] -> all machines' probabilities, [n, sum of widths].

        Raises:
          ValueError: an unknown kind of visible units, or no machine.
        """
        del train
        if self.visible not in VISIBLE or not self.widths:
            raise ValueError(f"DBN of {self.widths} over {self.visible!r}: visible is of {VISIBLE}")
        x = pixels(images, self.visible, self.sigma)
        layers = []
        for i, width in enumerate(self.widths):
            x = RBM(width, self.dtype, name=f"rbm{i}")(x)
            layers.append(x)
        return jnp.concatenate(layers, axis=-1)


def pixels(images: jax.Array, visible: str, sigma: float) -> jax.Array:
    """Images [n, h, w, c] as the values of visible units, [n, h * w * c]."""
    v = images.reshape(images.shape[0], -1)
    if visible == "bernoulli":
        return v
    deviation = v.std(-1, keepdims=True) + EPSILON
    return (v - v.mean(-1, keepdims=True)) / (sigma * deviation)


def hidden_logits(machine: Machine, v: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Log odds of the hidden units given the visible [n, d]: [n, f], float32 at least."""
    return _product(v, machine["kernel"], dtype) + machine["hidden_bias"][None]


def hidden(machine: Machine, v: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Probabilities of the hidden units given the visible [n, d]: [n, f], float32 at least."""
    return nn.sigmoid(hidden_logits(machine, v, dtype))


def expected(machine: Machine, h: jax.Array, visible: str, dtype: DTypeLike) -> jax.Array:
    """Expectation of the visible units given the hidden [n, f]: [n, d], float32 at least."""
    x = _product(h, machine["kernel"].T, dtype) + machine["visible_bias"][None]
    return nn.sigmoid(x) if visible == "bernoulli" else x


def free_energy(machine: Machine, v: jax.Array, visible: str, dtype: DTypeLike) -> jax.Array:
    """-log of the sum over all hidden states of exp(-energy), [n], of visible [n, d].

    The energy is -v.a - h.c - v.W h with Bernoulli units; Gaussian have |v - a|^2 / 2 for -v.a.
    """
    bias = machine["visible_bias"]
    # Not a matrix product, which accelerators would round to bfloat16.
    own = -(v * bias[None]) if visible == "bernoulli" else jnp.square(v - bias[None]) / 2
    return own.sum(-1) - nn.softplus(hidden_logits(machine, v, dtype)).sum(-1)


def gibbs(
    machine: Machine, keys: jax.Array, v: jax.Array, visible: str, dtype: DTypeLike
) -> jax.Array:
    """Samples the hidden units given the visible [n, d], then the visible given the hidden.

    keys: one for each row, [n], so that a row's chain does not depend on its neighbours.
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
    wide = jnp.promote_types(dtype, jnp.float32)
    return jnp.matmul(x.astype(dtype), kernel.astype(dtype), preferred_element_type=wide)
