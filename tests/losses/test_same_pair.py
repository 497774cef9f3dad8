"""The pair losses against their definitions, one pair of views at a time."""

import itertools

import checks
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses

B, K, D = 16, 5, 3
Z = checks.rows(B, 2, D)
POSTERIOR = np.exp(2 * checks.rows(B, K, seed=1))
POSTERIOR /= POSTERIOR.sum(1, keepdims=True)
OPTIONS = {"trust": 0.6, "temperature": 0.3, "threshold": 0.4}


def _pairs(z, posterior):
    """Means over same, then over different pairs: (cross-entropy, P(right), squared distance)."""
    unit = z / np.linalg.norm(z, axis=-1, keepdims=True)
    found, weights = [], []
    for (i, v), (j, w) in itertools.combinations(itertools.product(range(B), range(2)), 2):
        s = 1 if i == j else 0.6 * posterior[i] @ posterior[j]
        p = 1 / (1 + np.exp(-(unit[i, v] @ unit[j, w] - 0.4) / 0.3))
        distance = np.square(z[i, v] - z[j, w]).sum()
        found.append([[-np.log(p), p, distance], [-np.log(1 - p), 1 - p, distance]])
        weights.append([s, 1 - s])
    return np.einsum("pkm,pk->km", found, weights) / np.sum(weights, axis=0)[:, None]


def _oracle(z, posterior):
    same, different = _pairs(z, posterior)
    return (same[0] + different[0]) / 2 + 0.7 * same[2]


def _loss(z, posterior=POSTERIOR):
    entropy, distance, metrics = losses.same_pair(jnp.asarray(z), jnp.asarray(posterior), **OPTIONS)
    return entropy + 0.7 * distance, metrics


def test_loss_equals_the_definition_and_the_posterior_gets_no_gradient():
    same, different = _pairs(Z, POSTERIOR)
    metrics = {"same_recall": same[1], "different_recall": different[1]}
    checks.equals(_loss, _oracle, Z, POSTERIOR, constant=1, metrics=metrics)


def test_what_the_classes_are_called_does_not_matter():
    order = np.array([3, 0, 4, 2, 1])
    value = float(_loss(Z)[0])
    assert _loss(Z, POSTERIOR[:, order])[0] == pytest.approx(value, rel=1e-6)


def test_devices_degenerate_rows_and_narrow_types():
    checks.devices_do_not_matter(_loss, Z, rows_stay=False)
    checks.finite_when_degenerate(_loss, Z)
    checks.keeps_at_least_float32(_loss, Z)


@pytest.mark.parametrize("posterior", [np.eye(B), np.ones((B, 1))])
@pytest.mark.parametrize("views", [1, 2])
def test_without_pairs_of_a_kind_the_loss_is_finite(posterior, views):
    assert np.isfinite(_loss(Z[:, :views], posterior)[0])


@pytest.mark.parametrize(
    ("z", "options", "message"),
    [
        (Z[:, 0], {}, r"want \[b, v, d\] and \[b, k\]"),
        (Z[1:], {}, r"posterior \(16, 5\)"),
        (Z, {"temperature": 0}, "temperature 0, trust 1.0: want above 0"),
        (Z, {"trust": 1.1}, r"trust 1\.1: .* \[0, 1\]"),
    ],
)
def test_refusals(z, options, message):
    with pytest.raises(ValueError, match=message):
        losses.same_pair(z, POSTERIOR, **options)
