"""Compares linear evaluation by SGD with the same training written in NumPy float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import config as configuration
from ssl_jax.evals import sgd

N, B, F, K, STEPS = 60, 16, 5, 3, 12
RATES = (0.5, 5.0)


def blobs(n, seed):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % K
    return (2 * np.eye(K, F)[y] + rng.normal(size=(n, F))).astype(np.float32), y


TRAIN, TEST = blobs(N, 0), blobs(90, 1)
HELD_OUT = sgd.hold_out(TRAIN[1], 0)


def stream():
    """Yields batches of train rows with small noise, like a pipeline of random crops."""
    rng = np.random.default_rng(2)
    for _ in range(STEPS):
        index = rng.integers(0, N, B)
        views = TRAIN[0][index] + 0.1 * rng.normal(size=(B, F)).astype(np.float32)
        yield {
            "views": jnp.asarray(views[:, None, None, None], jnp.float32),
            "label": jnp.asarray(TRAIN[1][index], jnp.int32),
            "held_out": jnp.asarray(HELD_OUT[index]),
        }


def encode(weights, images):
    flat = images.reshape(len(images), -1) * weights
    return {"plain": flat, "wide": jnp.concatenate([flat, flat], axis=1)}


def evaluate(test_y=TEST[1], rates=RATES):
    x, y = TRAIN
    columns = {
        "plain": (x, y, TEST[0], test_y),
        "wide": (np.tile(x, 2), y, np.tile(TEST[0], 2), test_y),
    }
    return sgd.evaluate(
        encode, jnp.ones(()), stream(), columns,
        held_out=HELD_OUT, rates=rates, batch_size=B, total_steps=STEPS,
    )  # fmt: skip


def train_in_numpy(rate, *, sees_all):
    """Returns the weight [f + 1, k] after all steps; the last row is the bias."""
    weight, velocity = np.zeros((F + 1, K)), np.zeros((F + 1, K))
    for step, batch in enumerate(stream()):
        x = np.asarray(batch["views"], np.float64).reshape(B, F)
        x = np.hstack([x, np.ones((B, 1))])
        used = np.ones(B, bool) if sees_all else ~np.asarray(batch["held_out"])
        p = np.exp(x @ weight)
        p /= p.sum(1, keepdims=True)
        error = (p - np.eye(K)[np.asarray(batch["label"])])[used]
        gradient = x[used].T @ error / max(used.sum(), 1)
        velocity = 0.9 * velocity + gradient
        cosine = 0.5 * (1 + np.cos(np.pi * step / STEPS))
        weight -= rate * B / 256 * cosine * (gradient + 0.9 * velocity)
    return weight


def test_accuracies_equal_training_in_numpy():
    for rate in RATES:
        numbers, predicted = evaluate(rates=(rate,))["plain"]
        weight = train_in_numpy(rate, sees_all=True)
        logits = TEST[0] @ weight[:-1] + weight[-1]
        np.testing.assert_array_equal(predicted, logits.argmax(1))
        assert numbers["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == TEST[1]))
        weight = train_in_numpy(rate, sees_all=False)
        score = (TRAIN[0] @ weight[:-1] + weight[-1]).argmax(1) == TRAIN[1]
        assert numbers["held_out_accuracy"] == pytest.approx([score[HELD_OUT].mean()])


def test_weights_equal_training_in_numpy():
    classifiers = sgd.Classifiers(RATES, B, STEPS)
    state = classifiers.init(F, K)
    for batch in stream():
        x = batch["views"].reshape(B, F)
        state = classifiers.update(state, x, batch["label"], batch["held_out"])
    for which, sees_all in enumerate((False, True)):
        for i, rate in enumerate(RATES):
            wanted = train_in_numpy(rate, sees_all=sees_all)
            kernel, bias = (state[0][name][which, i] for name in ("kernel", "bias"))
            np.testing.assert_allclose(kernel, wanted[:-1], atol=2e-6)
            np.testing.assert_allclose(bias, wanted[-1], atol=2e-6)


def test_test_labels_do_not_influence_training():
    shuffled = np.random.default_rng(0).permutation(TEST[1])
    for (a, one), (b, two) in zip(evaluate().values(), evaluate(shuffled).values(), strict=True):
        assert a["lr"] == b["lr"]
        np.testing.assert_array_equal(one, two)
        assert b["accuracy"] < 0.55 < a["accuracy"]


def test_best_held_out_accuracy_chooses_the_rate_beside_a_diverged_one():
    numbers, _ = evaluate(rates=(np.inf, 5.0))["plain"]
    assert numbers["lr"] == 5.0
    assert numbers["held_out_accuracy"][0] is None
    assert 0.5 < numbers["held_out_accuracy"][1] <= 1
    assert numbers["accuracy"] == evaluate(rates=(5.0,))["plain"][0]["accuracy"]


def train_on_rows(x, y, rates, steps=40):
    """Trains on all rows, in equal numbers, at every step. The rates are not scaled."""
    held_out = sgd.hold_out(y, 0)
    index = np.arange(240) % len(x)
    batch = {"views": jnp.asarray(x[index][:, None]), "label": jnp.asarray(y[index]),
             "held_out": jnp.asarray(held_out[index])}  # fmt: skip
    return sgd.evaluate(
        lambda _, views: {"x": views}, None, [batch] * steps, {"x": (x, y, x, y)},
        held_out=held_out, rates=rates, batch_size=256, total_steps=steps,
    )["x"]  # fmt: skip


def default_rates():
    return configuration.default_config().eval.sgd_lr


def test_default_grid_reaches_the_rates_of_small_features():
    assert default_rates() == (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    rng = np.random.default_rng(4)
    y = np.arange(240) % K
    # The directions of the classes have less variance than others, as in features of unit length.
    x = np.hstack([0.02 * np.eye(K)[y], 0.3 * rng.normal(size=(240, 20))]).astype(np.float32)
    numbers, _ = train_on_rows(x, y, default_rates())
    scores = numbers["held_out_accuracy"]
    assert numbers["lr"] >= 30
    assert min(scores[-2:]) > 0.4 > max(scores[:-2])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e10])
def test_no_rate_of_the_default_grid_gives_weights_that_are_not_finite(scale):
    x, y = TRAIN
    numbers, _ = train_on_rows((scale * x).astype(np.float32), y, default_rates())
    assert None not in numbers["held_out_accuracy"]
    assert numbers["accuracy"] > 0.5


def test_diverged_rate_loses_even_to_chance():
    # The features carry nothing. A diverged classifier answers the first class, which is the most
    # frequent, so its accuracy would be the best.
    rng = np.random.default_rng(5)
    y = np.repeat([0, 1], [160, 80])
    x = rng.normal(size=(240, 60)).astype(np.float32)
    numbers, predicted = train_on_rows(x, y, (np.inf, 3.0))
    assert numbers["lr"] == 3.0
    assert len(set(predicted)) == 2
    assert numbers["held_out_accuracy"][1] < 2 / 3
    assert train_on_rows(x, y, (3.0, np.inf))[0]["lr_at_edge"]


def test_rates_that_all_diverge_give_numbers_that_json_holds():
    numbers, predicted = train_on_rows(*TRAIN, (np.inf, 2 * np.inf))
    assert numbers["held_out_accuracy"] == [None, None]
    assert not numbers["lr_at_edge"]
    assert set(predicted) <= set(TRAIN[1])


def edge(*scores, rates=(0.1, 1.0, 10.0)):
    best = max(range(len(scores)), key=lambda i: -1 if scores[i] is None else scores[i])
    return sgd._at_edge(rates[: len(scores)], scores, best)


def test_best_rate_is_at_the_edge_only_if_none_between_is_as_good():
    assert edge(0.2, 0.3, 0.4)
    assert edge(0.4, 0.3, 0.2)
    assert not edge(0.2, 0.4, 0.3)
    assert not edge(0.4, 0.4, 0.4)
    assert not edge(0.2, 0.3, None)
    assert edge(0.2, 0.3)
    assert not edge(0.2)  # a single rate is given, not chosen
    assert edge(0.4, 0.3, 0.2, rates=(10.0, 1.0, 0.1))


def test_class_that_train_lacks_counts_as_missed():
    seen, unseen = (evaluate(y)["plain"][0] for y in (TEST[1], np.where(TEST[1] == 2, 9, TEST[1])))
    right = evaluate()["plain"][1] == TEST[1]
    lost = (right & (TEST[1] == 2)).mean()
    assert unseen["accuracy"] == pytest.approx(seen["accuracy"] - lost)


def test_ten_percent_of_every_class_is_held_out():
    labels = np.repeat([3, 5, 9], [100, 50, 20])
    held = sgd.hold_out(labels, 0)
    assert [held[labels == c].sum() for c in (3, 5, 9)] == [10, 5, 2]
    assert not np.array_equal(held, sgd.hold_out(labels, 1))
