"""How features are spread over the sphere: what training logs and evaluation reports alike."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Rows(NamedTuple):
    """Unit rows less their mean, and the products of all pairs, computed once for all measures."""

    centred: jax.Array  # [n, f]
    squares: jax.Array  # [n]
    gram: jax.Array  # [n, n]


def rows(unit: jax.Array) -> Rows:
    """Of unit rows [n, f], n at least 2, as `losses.softmax.normalise` makes them."""
    # Close to collapse all but the difference from the mean would be nothing but rounding.
    centred = unit - unit.mean(0, keepdims=True)
    gram = jnp.matmul(centred, centred.T, precision="highest")
    return Rows(centred, jnp.square(centred).sum(-1), gram)


def deviation(x: Rows) -> jax.Array:
    """Standard deviation over examples, mean over dimensions, times sqrt(f).

    About 1 for directions spread evenly, 0 in collapse. Source: SimSiam (arXiv 2011.10566), section
    4.1, where it is compared with 1 / sqrt(f) instead.
    """
    return jnp.sqrt(x.centred.shape[-1] * jnp.square(x.centred).mean(0)).mean()


def effective_rank(x: Rows) -> jax.Array:
    """Number of directions over which features spread, 0 in none.

    Of the eigenvalues l of their covariance, (sum l)^2 / sum l^2. Roy and Vetterli (EUSIPCO 2007)
    take the entropy of the l by Shannon; this is by Renyi, of order 2, or participation ratio:
    trace and norm of the Gram matrix, no decomposition. About 1 / (1/r + 1/n) where that of all
    images is r.
    """
    n = len(x.centred)
    # Equal features differ from their mean by its rounding, which is no direction.
    spread = x.squares.sum() / n
    seen = spread > jnp.square(n * jnp.finfo(x.centred.dtype).eps)
    norm = jnp.where(seen, jnp.square(x.gram / n).sum(), 1)
    return jnp.where(seen, jnp.square(spread) / norm, 0)


def uniformity(x: Rows) -> jax.Array:
    """Log of the mean of exp(-2 distance^2) over pairs of different examples, 0 in collapse.

    Source: Wang and Isola (arXiv 2005.10242), section 4.1.
    """
    exponents = -2 * (x.squares[:, None] + x.squares[None] - 2 * x.gram)
    others = ~jnp.eye(len(x.squares), dtype=bool)
    middle = exponents.mean(where=others)
    return middle + jnp.log1p(jnp.expm1(exponents - middle).mean(where=others))


def alignment(one: jax.Array, two: jax.Array) -> jax.Array:
    """Mean squared distance of two views of an example, unit rows [n, f] each.

    Source: Wang and Isola (arXiv 2005.10242), section 4.1.
    """
    return jnp.square(one - two).sum(-1).mean()
