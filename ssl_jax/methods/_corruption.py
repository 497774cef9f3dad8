"""Noise that an autoencoder has to remove, drawn per example."""

import jax
import jax.numpy as jnp

NOISES = ("gaussian", "masking", "salt_and_pepper")


def check_noise(noise: str, level: float) -> None:
    """Raises ValueError unless the noise is known and the level is possible."""
    if noise not in NOISES:
        raise ValueError(f"noise must be one of {', '.join(NOISES)}; got {noise!r}")
    if not level >= 0 or (noise != "gaussian" and level > 1):
        need = "at least 0" if noise == "gaussian" else "a fraction in [0, 1]"
        raise ValueError(f"noise_level of {noise} noise must be {need}, got {level}")


def corrupt(keys: jax.Array, x: jax.Array, noise: str, level: float) -> tuple[jax.Array, jax.Array]:
    """Corrupts each row with random numbers of its own key.

    Args:
      keys: one key per row, [n].
      x: [n, ...], values in [0, 1].
      noise: "gaussian" adds normal noise of standard deviation `level`; the values are not clipped.
        "masking" sets components to 0, each with probability `level`. "salt_and_pepper" sets them
        to 0 or 1 instead, with equal probability.
      level: standard deviation, or probability that a component is corrupted.

    Returns:
      (corrupted rows, bool of the same shape that is True where a component was drawn to be
      corrupted). All components count as corrupted by Gaussian noise.

    Source: Vincent et al. (JMLR 11, 2010), section 3.3. Components are drawn independently, so that
    the corrupted fraction of an image varies a little around `level`.
    """
    shape, dtype = x.shape[1:], x.dtype
    if noise == "gaussian":
        normal = jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)
        return x + level * normal, jnp.ones(x.shape, bool)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, shape, dtype))(keys)
    corrupted = uniform < level
    # Given that a component is corrupted, its uniform number is below level / 2 half of the time.
    salt = uniform < level / 2 if noise == "salt_and_pepper" else jnp.zeros(x.shape, bool)
    return jnp.where(corrupted, salt.astype(dtype), x), corrupted
