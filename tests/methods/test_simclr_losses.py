"""SimCLR's losses against their formulas, written out for each anchor."""

import jax
import jax.numpy as jnp
import linear
import numpy as np
import pytest
import tiny

from ssl_jax.methods import Run, simclr

B, T, PRIOR, BETA = 6, 0.3, 0.2, 0.7


def make(**options):
    return simclr.make(linear.Linear(), Run(tiny.seen(2, 2), 5, B, 16), output_dim=4, **options)


def expected(z, name):
    """Mean over the 2b anchors of a loss in float64."""
    z = z.reshape(2 * B, -1).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    values = []
    for i in range(2 * B):
        positive = np.exp(z[i] @ z[i ^ 1] / T)
        negative = np.exp([z[i] @ z[j] / T for j in range(2 * B) if j // 2 != i // 2])
        n = len(negative)
        if name == "hard_negatives":
            weight = negative**BETA
            negative = negative * weight / weight.mean()
        total = negative.sum()
        if name in ("debiased", "hard_negatives"):
            total = max((total - n * PRIOR * positive) / (1 - PRIOR), n * np.exp(-1 / T))
        if name != "decoupled":
            total += positive
        values.append(-np.log(positive / total))
    return np.mean(values)


def loss_of(method, z):
    value, (_, metrics) = method.objective({}, {}, {"z": jnp.asarray(z)}, jax.random.key(0), 0)
    assert metrics["contrastive_chance"] == pytest.approx(1 / (2 * B - 1))
    return float(value)


@pytest.mark.parametrize("name", ["nt_xent", "decoupled", "debiased", "hard_negatives"])
def test_each_loss_equals_its_formula(name):
    # The two views agree only in part, so that the debiased sums stay above their lower bound.
    z = np.random.default_rng(2).normal(size=(B, 2, 4)).astype(np.float32)
    method = make(loss=name, temperature=T, class_prior=PRIOR, concentration=BETA)
    assert loss_of(method, z) == pytest.approx(expected(z, name), rel=1e-5)


def test_the_default_is_nt_xent_and_ignores_the_parameters_of_other_losses():
    z = np.random.default_rng(2).normal(size=(B, 2, 4)).astype(np.float32)
    for method in (make(temperature=T), make(temperature=T, class_prior=2.0, concentration=-1.0)):
        assert loss_of(method, z) == pytest.approx(expected(z, "nt_xent"), rel=1e-5)


@pytest.mark.parametrize(("name", "low"), [("nt_xent", 0), ("decoupled", -20), ("debiased", 0)])
def test_each_loss_trains(name, low):
    rows = linear.batches(1, B) * 20
    history, _ = linear.trajectory(make(loss=name, temperature=T), rows)
    first, last = (float(history[i][1]["loss"]) for i in (0, -1))
    assert low < last < first


def test_an_unknown_loss_lists_the_losses():
    with pytest.raises(ValueError, match=r"'triplet'.*nt_xent, decoupled, debiased, hard"):
        make(loss="triplet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "debiased", "class_prior": 1.0}, "class_prior must be in"),
        ({"loss": "hard_negatives", "concentration": -1.0}, "concentration must be at least 0"),
        ({"loss": "decoupled", "temperature": 0.01}, "temperature must be at least 0.0149"),
    ],
)
def test_parameters_of_the_loss_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        loss_of(make(**options), np.ones((B, 2, 4), np.float32))
