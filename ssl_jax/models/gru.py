"""Gated recurrent unit over a sequence."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


class GRU(nn.Module):
    """One layer that reads a sequence from its start: [n, t, c] -> [n, t, width].

    The reset gate acts after the recurrent product, as in cuDNN and PyTorch; the order of the gates
    in "input" and "hidden" is reset, update, candidate. The state is float32.

    Attributes:
      width: size of the state.
      dtype: dtype of the products.

    Source: Cho et al. (arXiv 1406.1078); this form: Chung et al. (arXiv 1412.3555), section 3.2.
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the state after every element; output i does not depend on later elements."""
        # One product for all times: the loop then holds only the recurrent product.
        projected = nn.Dense(3 * self.width, dtype=self.dtype, name="input")(x)
        kernel = self.param(
            "hidden_kernel", nn.initializers.orthogonal(), (self.width, 3 * self.width), jnp.float32
        )
        bias = self.param("hidden_bias", nn.initializers.zeros, (3 * self.width,), jnp.float32)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        kernel = kernel.astype(jnp.promote_types(self.dtype, projected.dtype))

        def step(state: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
            recurrent = jnp.dot(state.astype(kernel.dtype), kernel).astype(wide) + bias[None]
            reset, update, candidate = jnp.split(inputs.astype(wide), 3, axis=-1)
            own_reset, own_update, own_candidate = jnp.split(recurrent, 3, axis=-1)
            reset, update = jax.nn.sigmoid(reset + own_reset), jax.nn.sigmoid(update + own_update)
            candidate = jnp.tanh(candidate + reset * own_candidate)
            state = (1 - update) * candidate + update * state
            return state, state

        # Made from the input, so that the state is divided over the devices like the rows.
        start = jnp.zeros_like(projected[:, 0, : self.width], wide)
        _, states = jax.lax.scan(step, start, projected.swapaxes(0, 1))
        return states.swapaxes(0, 1).astype(self.dtype)
