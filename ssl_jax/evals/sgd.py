"""Linear evaluation as in papers: SGD on random views, with a frozen encoder."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_jax.evals import draws, rows

MOMENTUM = 0.9
BATCH = 256  # batch size that the rates refer to
HELD_OUT = 10  # every 10th train example is held out to choose the rate
Tree = Any


class Classifiers:
    """Linear classifiers of one feature set, trained side by side.

    There are two for every rate: the first does not see the held-out examples, whose accuracy
    chooses the rate; the second sees all. They share the forward of the encoder, which takes most
    of the time.
    """

    def __init__(self, rates: Sequence[float], batch_size: int, total_steps: int):
        self.rates = np.asarray(rates, np.float32)
        self.tx = optax.chain(
            optax.trace(MOMENTUM, nesterov=True),
            optax.scale_by_schedule(optax.cosine_decay_schedule(-batch_size / BATCH, total_steps)),
        )

    def init(self, width: int, num_classes: int) -> Tree:
        """Returns the state before the first step: zeros."""
        shape = (2, len(self.rates))
        params = {
            "kernel": jnp.zeros((*shape, width, num_classes)),
            "bias": jnp.zeros((*shape, num_classes)),
        }
        return params, self.tx.init(params)

    def update(self, state: Tree, x: jax.Array, y: jax.Array, held_out: jax.Array) -> Tree:
        """Takes one step.

        Args:
          state: state before the step.
          x: float [b, f], features.
          y: int [b], class codes.
          held_out: bool [b], True for held-out examples.

        Returns:
          The state after the step.
        """
        params, opt_state = state
        weight = jnp.stack([1.0 - held_out.astype(x.dtype), jnp.ones(len(x), x.dtype)])

        def loss_fn(params: Tree) -> jax.Array:
            logits = jnp.einsum("bf,srfk->srbk", x, params["kernel"]) + params["bias"][:, :, None]
            codes = jnp.broadcast_to(y[None, None], logits.shape[:3])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, codes)
            mean = (losses * weight[:, None]).sum(-1) / jnp.maximum(weight.sum(-1), 1)[:, None]
            return mean.sum()  # the classifiers' gradients do not mix

        updates, opt_state = self.tx.update(jax.grad(loss_fn)(params), opt_state)
        shape = (1, -1, 1, 1)
        rates = {"kernel": self.rates.reshape(shape), "bias": self.rates.reshape(shape[:3])}
        updates = jax.tree.map(jnp.multiply, updates, rates)
        return optax.apply_updates(params, updates), opt_state


def evaluate(
    encode: Callable[[Tree, jax.Array], Mapping[str, jax.Array]],
    weights: Tree,
    batches: Iterable[Mapping[str, jax.Array]],
    columns: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    *,
    held_out: np.ndarray,
    rates: Sequence[float],
    batch_size: int,
    total_steps: int,
) -> dict[str, tuple[dict[str, Any], np.ndarray]]:
    """Trains classifiers of every feature set on random views, and tests them on whole examples.

    This is SimCLR's linear evaluation (arXiv 2002.05709, appendix B.6): Nesterov momentum 0.9, rate
    times batch / 256, cosine schedule, no warm-up, no decay, no other regularisation. The paper's
    rate is 0.1, that of MoCo 30 (arXiv 1911.05722, section 4.1); here the best of several rates on
    the held-out examples is taken. A rate whose weights are not finite loses to all others.

    Args:
      encode: (weights, views [b, ...]) -> features [b, f] by feature set, frozen.
      weights: first argument of `encode`.
      batches: `total_steps` global batches {"views" [b, 1, ...], "label" int [b] in 0..k-1,
        "held_out" bool [b]}.
      columns: by feature set, (train features [n, f] of whole examples, train labels [n], test
        features [m, f], test labels [m]).
      held_out: bool [n], the train examples that choose the rate, as marked in `batches`.
      rates: rates to choose from; each is multiplied by batch_size / 256.
      batch_size: size of the global batches.
      total_steps: number of batches.

    Returns:
      By feature set: (`draws.summary` with "lr", "held_out_accuracy" (one for each rate, None if it
      diverged) and "lr_at_edge" (the best rate is the smallest or largest of several, and none
      between is as good), predicted labels of the test examples [m]).
    """
    classifiers = Classifiers(rates, batch_size, total_steps)
    classes = {name: draws.codes(arrays[1], arrays[3]) for name, arrays in columns.items()}
    states = {
        name: classifiers.init(arrays[0].shape[1], len(classes[name][0]))
        for name, arrays in columns.items()
    }

    @jax.jit
    def step(states: Tree, weights: Tree, batch: Mapping[str, jax.Array]) -> Tree:
        features = encode(weights, batch["views"][:, 0])
        return {
            name: classifiers.update(state, features[name], batch["label"], batch["held_out"])
            for name, state in states.items()
        }

    for batch in batches:
        states = step(states, weights, batch)
    results = {}
    for name, (train_x, _, test_x, _) in columns.items():
        names, codes, target = classes[name]
        params = jax.tree.map(rows.gather, states[name][0])
        scores = [
            float(np.mean(_predict(params, 0, i, train_x[held_out]) == codes[held_out]))
            if all(np.isfinite(array[:, i]).all() for array in params.values())
            else None
            for i in range(len(rates))
        ]
        best = max(range(len(rates)), key=lambda i: _rank(scores[i]))
        predicted = _predict(params, 1, best, test_x)
        numbers = draws.summary([float(np.mean(predicted == target))])
        numbers |= {
            "lr": rates[best],
            "held_out_accuracy": scores,
            "lr_at_edge": _at_edge(rates, scores, best),
        }
        results[name] = numbers, names[predicted]
    return results


def _rank(score: float | None) -> float:
    return -1.0 if score is None else score


def _at_edge(rates: Sequence[float], scores: Sequence[float | None], best: int) -> bool:
    low, high = min(rates), max(rates)
    between = [_rank(s) for rate, s in zip(rates, scores, strict=True) if low < rate < high]
    outermost = low < high and rates[best] in (low, high)
    return outermost and _rank(scores[best]) > max(between, default=-1.0)


def hold_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """Returns bool [n], True for the train examples that choose the rate: 10 % of every class."""
    _, codes = np.unique(labels, return_inverse=True)
    return draws.stratified_folds(codes, HELD_OUT, np.random.default_rng([seed, 0])) == 0


def _predict(params: Tree, which: int, rate: int, x: np.ndarray) -> np.ndarray:
    logits = x @ params["kernel"][which, rate] + params["bias"][which, rate]
    return np.argmax(np.nan_to_num(logits, nan=-np.inf), axis=-1)
