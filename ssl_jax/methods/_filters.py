"""Figure of the filters that the units of a first layer have learned."""

import jax
import jax.numpy as jnp

ROWS, COLUMNS = 5, 10
SCALE = "The units with the largest weights are shown. Grey is 0; every filter has its own scale."


def largest_filters(filters: jax.Array) -> jax.Array:
    """Draws the largest filters, the largest first.

    Args:
      filters: weights [f, h, w, c] of f units.

    Returns:
      Images [rows, columns, h, w, c] in [0, 1], at most 5 x 10.
    """
    flat = filters.reshape(len(filters), -1)
    count = min(ROWS * COLUMNS, len(flat)) // COLUMNS * COLUMNS or len(flat)
    largest = jnp.argsort(-jnp.square(flat).sum(1))[:count]
    x = flat[largest]
    x = 0.5 + 0.5 * x / jnp.abs(x).max(1, keepdims=True).clip(1e-12)
    return x.reshape(-1, min(COLUMNS, count), *filters.shape[1:])
