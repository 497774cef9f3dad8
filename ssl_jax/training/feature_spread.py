"""Measures how features are spread over the sphere, for the training log and for evaluation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Rows(NamedTuple):
    """Centred unit rows and the products of all pairs, computed once for all measures."""

    centred: jax.Array  # [n, f], unit rows minus their mean
    squares: jax.Array  # [n], squared norms of the centred rows
    gram: jax.Array  # [n, n], inner products of the centred rows


def rows(unit: jax.Array) -> Rows:
    """Returns `Rows` of unit rows [n, f] of `losses.softmax.normalise`; n is at least 2."""
    # Close to collapse, only the difference from the mean exceeds the rounding error.
    centred = unit - unit.mean(0, keepdims=True)
    gram = jnp.matmul(centred, centred.T, precision="highest")
    return Rows(centred, jnp.square(centred).sum(-1), gram)


def deviation(x: Rows) -> jax.Array:
    """Returns the standard deviation over examples, averaged over dimensions, times sqrt(f).

    About 1 if directions are spread evenly, 0 in collapse.

    Source: SimSiam (arXiv 2011.10566), section 4.1, which does not multiply by sqrt(f).
    """
    return jnp.sqrt(x.centred.shape[-1] * jnp.square(x.centred).mean(0)).mean()


def effective_rank(x: Rows) -> jax.Array:
    """Returns the number of directions over which features spread; 0 for equal features.

    The value is (sum l)^2 / sum l^2 for the eigenvalues l of the covariance: the participation
    ratio, which is the exponential of the Renyi entropy of order 2. It follows from trace and norm
    of the Gram matrix, without a decomposition. Roy and Vetterli (EUSIPCO 2007) use Shannon's
    entropy instead. A sample of n examples from data of rank r gives about 1 / (1/r + 1/n).
    """
    n = len(x.centred)
    spread = x.squares.sum() / n
    # Equal features differ from their mean by rounding errors, which are not directions.
    above_rounding = spread > jnp.square(n * jnp.finfo(x.centred.dtype).eps)
    norm = jnp.where(above_rounding, jnp.square(x.gram / n).sum(), 1)
    return jnp.where(above_rounding, jnp.square(spread) / norm, 0)


def uniformity(x: Rows) -> jax.Array:
    """Returns log mean exp(-2 distance^2) over pairs of different examples; 0 in collapse.

    Source: Wang and Isola (arXiv 2005.10242), section 4.1.
    """
    exponents = -2 * (x.squares[:, None] + x.squares[None] - 2 * x.gram)
    others = ~jnp.eye(len(x.squares), dtype=bool)
    middle = exponents.mean(where=others)
    return middle + jnp.log1p(jnp.expm1(exponents - middle).mean(where=others))


def alignment(one: jax.Array, two: jax.Array) -> jax.Array:
    """Returns the mean squared distance between two views of an example, unit rows [n, f] each.

    Source: Wang and Isola (arXiv 2005.10242), section 4.1.
    """
    return jnp.square(one - two).sum(-1).mean()
