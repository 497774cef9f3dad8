"""Linear evaluation of frozen features: multinomial logistic regression by L-BFGS."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_jax.errors import BAD_DATA, Fault

L2 = tuple(10.0**e for e in range(2, -7, -1))  # relative to the mean loss, strong to weak
FOLDS = 5
ONE_FOLD_FROM = 5000  # labels: above, one held-out fold measures well enough
TOLERANCE = 1e-5
MAX_ITERATIONS = 300
# Choosing the L2 strength compares accuracies, which settle long before the weights do.
PATH_TOLERANCE = 1e-3
PATH_ITERATIONS = 50
PATIENCE = 5  # iterations
EPSILON = float(np.finfo(np.float32).eps)


class Linear(NamedTuple):
    """A linear classifier: argmax of x @ weight + bias."""

    weight: jax.Array  # [f, k]
    bias: jax.Array  # [k]
    iterations: jax.Array
    gradient_norm: jax.Array  # in preconditioned coordinates, at the end

    def predict(self, x: jax.Array) -> np.ndarray:
        """Features [n, f] -> class codes [n]."""
        return np.asarray(_predict(x, self.weight, self.bias))


class Problem(NamedTuple):
    """Features ready for many fits: other L2 strengths, other rows held out.

    They are rotated to their principal axes, r = min(n, f) of them. A rotation keeps the L2 norm
    of the weights, and with n < f the optimal weights lie in the span of the rows: the optimum is
    that of the original problem, and its Hessian is nearly diagonal.
    """

    x: jax.Array  # [n, r]
    y: jax.Array  # [n] in 0..k-1
    variance: jax.Array  # [r], mean square along every axis
    axes: jax.Array  # [f, r]: x = features @ axes

    def apply(self, features: np.ndarray) -> jax.Array:
        """Features [m, f] in the coordinates of `x`."""
        return _dot(jnp.asarray(features, jnp.float32), self.axes)


def fit(
    x: np.ndarray,
    y: np.ndarray,
    *,
    l2: float,
    num_classes: int,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Linear:
    """Multinomial logistic regression with an L2 penalty on the weights, not on the bias.

    Minimises mean cross-entropy + l2 / 2 * ||weight||^2: the optimum of scikit-learn's
    LogisticRegression(C=1 / (n * l2)). L-BFGS (memory 10, zoom line search) runs in coordinates
    where an upper bound of the Hessian, x^T x / 2n + l2 (Böhning 1992), is the identity; it stops
    when the gradient's norm there is below `tolerance`, whatever the scale of the features, or
    when five iterations in a row bring no decrease that float32 can hold.

    Args:
      x: float [n, f], best standardised.
      y: int [n] in 0..num_classes-1.
      l2: strength, relative to the mean loss.
    """
    problem = prepare(x, y)
    start = _zeros(problem, num_classes)
    found = _solve(problem, jnp.ones(len(x)), l2, start, tolerance, max_iterations)
    return found._replace(weight=_dot(problem.axes, found.weight))


def prepare(x: np.ndarray, y: np.ndarray) -> Problem:
    """Problem of features x [n, f] and codes y [n]."""
    return Problem(*_rotate(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32)))


@jax.jit
def _rotate(x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
    n, f = x.shape
    # 4 rows per feature give axes that are good enough: any rotation has the same optimum.
    sample = x[:: max(1, n // (4 * f))]
    span = jnp.linalg.qr(x.T)[0] if n < f else None
    if span is not None:
        sample = _dot(sample, span)
    variance, axes = jnp.linalg.eigh(_dot(sample.T, sample) / len(sample))
    axes = axes if span is None else _dot(span, axes)
    return _dot(x, axes), y, jnp.maximum(variance, 0), axes


def sweep(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    l2: tuple[float, ...] = L2,
    labels_per_class: int = 0,
    draws: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """Test accuracy of linear classifiers whose L2 strength is chosen inside the train labels.

    Features are standardised by the mean and standard deviation of all train features, labelled
    or not (a batch norm without scale and shift, as in He et al. 2022, arXiv 2111.06377, A.1).
    The L2 path runs from strong to weak with warm starts on stratified folds (all 5 up to 5,000
    labels, one of 5 above); the best held-out accuracy wins, on a tie the least held-out loss; then
    one fit on all labels. Test labels are read once, for the final accuracy.

    Args:
      train_x: float [n, f].
      train_y: int [n], any integers.
      test_x: float [m, f].
      test_y: int [m]; a class that train lacks counts as missed.
      l2: strengths to choose from, relative to the mean loss; a single one is not chosen but used.
      labels_per_class: labels drawn from every class; 0 takes all of them.
      draws: how often labels are drawn; with all labels there is one way to take them.
      seed: of the draws and the folds, which are the same for every feature set.

    Returns:
      {"accuracy", "std", "draws", "n_labels", "l2" (one per draw)}; "std" is the standard
      deviation over draws (n - 1), 0 for one draw.

    Raises:
      Fault: a class has fewer labels than asked, or too few to hold one out.
    """
    classes, codes = np.unique(train_y, return_inverse=True)
    known = np.searchsorted(classes, test_y).clip(max=len(classes) - 1)
    target = np.where(classes[known] == test_y, known, -1)
    mean, deviation = _moments(train_x)
    scaled_test = (test_x - mean) / deviation
    accuracies, chosen, rows = [], [], np.arange(len(codes))
    for draw in range(draws if labels_per_class else 1):
        rng = np.random.default_rng([seed, draw])
        if labels_per_class:
            rows = draw_labels(codes, labels_per_class, rng=rng, names=classes)
        problem = prepare((train_x[rows] - mean) / deviation, codes[rows])
        best, start = _select(problem, len(classes), sorted(l2, reverse=True), rng)
        found = _solve(problem, jnp.ones(len(rows)), best, start, TOLERANCE, MAX_ITERATIONS)
        accuracies.append(float(np.mean(found.predict(problem.apply(scaled_test)) == target)))
        chosen.append(best)
    return {
        "accuracy": float(np.mean(accuracies)),
        "std": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0,
        "draws": accuracies,
        "n_labels": len(rows),
        "l2": chosen,
    }


def draw_labels(
    codes: np.ndarray, per_class: int | np.ndarray, *, rng: np.random.Generator, names: np.ndarray
) -> np.ndarray:
    """Sorted rows, `per_class` of every class, without replacement; `names` are for the message.

    `per_class` is one number, or one for every class.
    """
    counts = np.bincount(codes)
    wanted = np.broadcast_to(per_class, counts.shape)
    if (counts < wanted).any():
        poor = int((counts - wanted).argmin())
        raise Fault(
            f"{wanted[poor]} labels per class asked, but class {names[poor]} has {counts[poor]} in "
            "the train split; lower labels_per_class",
            BAD_DATA,
        )
    drawn = [
        rng.choice(np.flatnonzero(codes == code), wanted[code], replace=False)
        for code in range(len(counts))
    ]
    return np.sort(np.concatenate(drawn))


def fold_of(codes: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of every row, int [n]: of every class, and overall, folds differ by one row at most."""
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    fold = np.empty(len(codes), int)
    fold[order] = np.arange(len(codes)) % folds
    return fold


def _select(
    problem: Problem, num_classes: int, path: list[float], rng: np.random.Generator
) -> tuple[float, tuple[jax.Array, jax.Array]]:
    """The L2 of the best held-out accuracy, and a solution at that L2 to start from.

    Ties are the rule with few labels; the stronger L2 would underfit then.
    """
    codes = np.asarray(problem.y)
    start = _zeros(problem, num_classes)
    if len(path) == 1:
        return path[0], start
    if np.bincount(codes).max() < 2:
        raise Fault(
            "linear evaluation: one label per class leaves none to choose the L2 strength by; "
            "take 2 or more per class",
            BAD_DATA,
        )
    fold = fold_of(codes, FOLDS, rng)
    correct, loss = np.zeros(len(path)), np.zeros(len(path))
    for held_out in range(1 if len(codes) > ONE_FOLD_FROM else min(FOLDS, len(codes))):
        weight = jnp.asarray(fold != held_out, jnp.float32)
        params, solutions = start, []
        for i, l2 in enumerate(path):
            found = _solve(problem, weight, l2, params, PATH_TOLERANCE, PATH_ITERATIONS)
            params = found.weight, found.bias
            solutions.append(params)
            right = found.predict(problem.x) == codes
            correct[i] += right[fold == held_out].sum()
            loss[i] += np.asarray(_losses(problem.x, problem.y, *params))[fold == held_out].sum()
    best = min(range(len(path)), key=lambda i: (-correct[i], loss[i]))
    return path[best], solutions[best]


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    # A constant feature has no scale; dividing by its rounding error would invent one.
    return mean, np.where(deviation > 1e-6 * deviation.max(), deviation, 1.0)


def _zeros(problem: Problem, num_classes: int) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros((problem.x.shape[1], num_classes)), jnp.zeros(num_classes)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    # On accelerators the default precision is too coarse for a line search to converge.
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _predict(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    return jnp.argmax(_dot(x, weight) + bias[None], axis=-1)


@jax.jit
def _losses(x: jax.Array, y: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    logits = _dot(x, weight) + bias[None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


@partial(jax.jit, static_argnames="max_iterations")
def _solve(
    problem: Problem,
    row_weight: jax.Array,
    l2: jax.Array,
    start: tuple[jax.Array, jax.Array],
    tolerance: jax.Array,
    max_iterations: int,
) -> Linear:
    """Minimises over rows weighted by `row_weight`; held-out rows have 0, so no shape changes."""
    x, y, variance, _ = problem
    # The floor, far below what matters, keeps float32 from dividing by the rounding of a zero.
    curvature = 0.5 * variance + l2 + 1e-6 * jnp.mean(variance)
    scale = jax.lax.rsqrt(curvature)[:, None]

    # One array, bias as the last row: half the work for the compiler.
    def objective(params: jax.Array) -> jax.Array:
        weight = scale * params[:-1]
        loss = optax.softmax_cross_entropy_with_integer_labels(_dot(x, weight) + params[-1:], y)
        mean = jnp.sum(row_weight * loss) / jnp.sum(row_weight)
        return mean + 0.5 * l2 * jnp.sum(weight**2)

    solver = optax.lbfgs()

    def unfinished(carry: tuple) -> jax.Array:
        _, _, _, grad, iteration, stalled = carry
        go_on = (iteration < max_iterations) & (stalled < PATIENCE)
        return go_on & (jnp.linalg.norm(grad) > tolerance)

    def step(carry: tuple) -> tuple:
        params, state, value, grad, iteration, stalled = carry
        updates, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=objective
        )
        new_value, new_grad = optax.tree.get(state, "value"), optax.tree.get(state, "grad")
        stalled = jnp.where(new_value < value * (1 - EPSILON), 0, stalled + 1)
        return params + updates, state, new_value, new_grad, iteration + 1, stalled

    params = jnp.concatenate([start[0] / scale, start[1][None]])
    carry: tuple[Any, ...] = (
        params,
        solver.init(params),
        *jax.value_and_grad(objective)(params),
        0,
        0,
    )
    params, _, _, grad, iterations, _ = jax.lax.while_loop(unfinished, step, carry)
    return Linear(scale * params[:-1], params[-1], iterations, jnp.linalg.norm(grad))
