"""Multinomial logistic regression by L-BFGS, with its rows divided over devices."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding

from ssl_jax.evals import rows

TOLERANCE = 1e-5  # norm of the preconditioned gradient at which the solver stops
CONVERGED = 1e-4  # largest norm of a converged fit; rounding can hide what is left to gain
MAX_ITERATIONS = 1000
MEMORY = 50  # updates that L-BFGS remembers; badly scaled features need half as many steps as at 10
# Iterations without a smaller loss or gradient before the solver stops: at a norm up to CONVERGED,
# and above it.
PATIENCE = 10, 200
Start = tuple[jax.Array, jax.Array]  # weight, bias


class Linear(NamedTuple):
    """A linear classifier: argmax of x @ weight + bias."""

    weight: jax.Array  # [f, k]
    bias: jax.Array  # [k]
    iterations: jax.Array  # []
    gradient_norm: jax.Array  # [], see `fit`; of this weight and bias

    def predict(self, x: jax.Array) -> np.ndarray:
        """Returns the class codes [n] of features [n, f]."""
        return rows.gather(_predict(x, self.weight, self.bias))


class Problem(NamedTuple):
    """Features prepared for many fits with different L2 strengths or held-out rows.

    The features are rotated to their r = min(n, f) principal axes. A rotation keeps the L2 norm of
    the weights, and with n < f the optimal weights lie in the span of the rows. So the optimum is
    that of the original problem, and its Hessian is nearly diagonal.
    """

    x: jax.Array  # [n, r], padded with rows of zeros if the devices do not divide n
    y: jax.Array  # [n] in 0..k-1
    variance: jax.Array  # [r], mean square along every axis
    axes: jax.Array  # [f, r]: x = features @ axes

    def apply(self, features: np.ndarray, sharding: NamedSharding | None = None) -> jax.Array:
        """Returns features [m, f] in the coordinates of `x`, divided and padded like `x`."""
        return _rotate(rows.shard(np.asarray(features, np.float32), sharding), self.axes)

    def zeros(self, num_classes: int) -> Start:
        """Returns zeros, the start of a fit without a warm start."""
        return jnp.zeros((self.x.shape[1], num_classes)), jnp.zeros(num_classes)


def fit(
    x: np.ndarray,
    y: np.ndarray,
    *,
    l2: float,
    num_classes: int,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
    sharding: NamedSharding | None = None,
) -> Linear:
    """Fits multinomial logistic regression with an L2 penalty on the weights, not on the bias.

    Minimises mean cross-entropy + l2 / 2 * ||weight||^2: the optimum of scikit-learn's
    LogisticRegression(C=1 / (n * l2)). L-BFGS (memory 50, zoom line search) runs in coordinates
    where an upper bound of the Hessian, M = x^T x / 2n + l2 (Böhning 1992), is the identity; x^T x
    is estimated from some rows. It stops when the L2 norm of the gradient in these coordinates,
    sqrt(||M^(-1/2) d/dweight||^2 + ||d/dbias||^2), is at most `tolerance`. The scale of the
    features does not change this norm.

    A small decrease of the loss does not stop the solver: on badly scaled features, one iteration
    decreases the loss by less than float32 resolves long before the optimum. When only rounding is
    left, the solver stops after 10 iterations with neither a smaller loss nor a smaller gradient,
    or after 200 of them if the norm is still above 1e-4.

    Args:
      x: float [n, f], standardised for best convergence.
      y: int [n] in 0..num_classes-1.
      l2: strength of the penalty, relative to the mean loss.
      num_classes: number of classes.
      tolerance: norm of the gradient at which the solver stops.
      max_iterations: largest number of iterations.
      sharding: sharding of the rows; None for one device.

    Returns:
      The classifier in the coordinates of `x`.
    """
    problem = prepare(x, y, sharding)
    weight = rows.shard(np.ones(len(x), np.float32), sharding)
    fitted = solve(problem, weight, l2, problem.zeros(num_classes), tolerance, max_iterations)
    return fitted._replace(weight=_dot(problem.axes, fitted.weight))


def prepare(x: np.ndarray, y: np.ndarray, sharding: NamedSharding | None = None) -> Problem:
    """Prepares features x [n, f] with class codes y [n] for `solve`."""
    x = np.asarray(x, np.float32)
    n, f = x.shape
    # 4 rows per feature give accurate enough axes, because any rotation has the same optimum.
    sample = x[:: max(1, n // (4 * f))]
    variance, axes = _axes(sample) if n >= f else _span(x, sample)
    codes = rows.shard(y.astype(np.int32), sharding)
    return Problem(_rotate(rows.shard(x, sharding), axes), codes, variance, axes)


@jax.jit
def _axes(sample: jax.Array) -> tuple[jax.Array, jax.Array]:
    variance, axes = jnp.linalg.eigh(_dot(sample.T, sample) / len(sample))
    return jnp.maximum(variance, 0), axes


@jax.jit
def _span(x: jax.Array, sample: jax.Array) -> tuple[jax.Array, jax.Array]:
    span = jnp.linalg.qr(x.T)[0]
    variance, axes = _axes(_dot(sample, span))
    return variance, _dot(span, axes)


@jax.jit
def _rotate(x: jax.Array, axes: jax.Array) -> jax.Array:
    return _dot(x, axes)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    # On accelerators the default precision is too coarse for a line search to converge.
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _predict(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    return jnp.argmax(_dot(x, weight) + bias[None], axis=-1)


@jax.jit
def losses(x: jax.Array, y: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns the cross-entropy of every row, [n]."""
    logits = _dot(x, weight) + bias[None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


@partial(jax.jit, static_argnames="max_iterations")
def solve(
    problem: Problem,
    row_weight: jax.Array,
    l2: jax.Array | float,
    start: Start,
    tolerance: jax.Array | float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Linear:
    """Fits a classifier in the coordinates of `problem.x`.

    Args:
      problem: the features and codes.
      row_weight: float32 [n], weight of each row in the mean loss. Held-out rows have weight 0, so
        that no shape changes and nothing is compiled again.
      l2: strength of the penalty, relative to the mean loss.
      start: weight and bias to start from.
      tolerance: norm of the preconditioned gradient at which the solver stops.
      max_iterations: largest number of iterations.
    """
    x, y, variance, _ = problem
    # The small floor keeps float32 from dividing by the rounding error of a zero.
    curvature = 0.5 * variance + l2 + 1e-6 * jnp.mean(variance)
    scale = jax.lax.rsqrt(curvature)[:, None]

    # One array with the bias as its last row halves the compile time.
    def objective(params: jax.Array) -> jax.Array:
        weight = scale * params[:-1]
        loss = optax.softmax_cross_entropy_with_integer_labels(_dot(x, weight) + params[-1:], y)
        mean = jnp.sum(row_weight * loss) / jnp.sum(row_weight)
        return mean + 0.5 * l2 * jnp.sum(weight**2)

    solver = optax.lbfgs(memory_size=MEMORY)

    def unfinished(carry: tuple) -> jax.Array:
        _, _, _, grad, _, _, iteration, stalled = carry
        norm = jnp.linalg.norm(grad)
        patient = stalled < jnp.where(norm <= CONVERGED, *PATIENCE)
        return (iteration < max_iterations) & patient & (norm > tolerance)

    def step(carry: tuple) -> tuple:
        params, state, value, grad, least, shortest, iteration, stalled = carry
        updates, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=objective
        )
        value, grad = optax.tree.get(state, "value"), optax.tree.get(state, "grad")
        norm = jnp.linalg.norm(grad)
        stalled = jnp.where((value < least) | (norm < shortest), 0, stalled + 1)
        least, shortest = jnp.minimum(value, least), jnp.minimum(norm, shortest)
        return params + updates, state, value, grad, least, shortest, iteration + 1, stalled

    params = jnp.concatenate([start[0] / scale, start[1][None]])
    carry: tuple[Any, ...] = (
        params,
        solver.init(params),
        *jax.value_and_grad(objective)(params),
        jnp.inf,
        jnp.inf,
        0,
        0,
    )
    params, _, _, grad, _, _, iterations, _ = jax.lax.while_loop(unfinished, step, carry)
    return Linear(scale * params[:-1], params[-1], iterations, jnp.linalg.norm(grad))
