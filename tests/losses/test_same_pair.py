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
    """Weighted means over same pairs, then over different pairs.

    Each row holds (cross-entropy, probability of the right answer, squared distance).
    """
    unit = z / np.linalg.norm(z, axis=-1, keepdims=True)
    values, weights = [], []
    for (i, v), (j, w) in itertools.combinations(itertools.product(range(B), range(2)), 2):
        s = 1 if i == j else 0.6 * posterior[i] @ posterior[j]
        p = 1 / (1 + np.exp(-(unit[i, v] @ unit[j, w] - 0.4) / 0.3))
        distance = np.square(z[i, v] - z[j, w]).sum()
        values.append([[-np.log(p), p, distance], [-np.log(1 - p), 1 - p, distance]])
        weights.append([s, 1 - s])
    return np.einsum("pkm,pk->km", values, weights) / np.sum(weights, axis=0)[:, None]


def _oracle(z, posterior):
    same, different = _pairs(z, posterior)
    return (same[0] + different[0]) / 2 + 0.7 * same[2]


def _loss(z, posterior=POSTERIOR):
    entropy, distance, metrics = losses.same_pair(jnp.asarray(z), jnp.asarray(posterior), **OPTIONS)
    return entropy + 0.7 * distance, metrics


def test_loss_equals_the_definition_and_the_posterior_gets_no_gradient():
    same, different = _pairs(Z, POSTERIOR)
    metrics = {"same_recall": same[1], "different_recall": different[1]}
    checks.assert_equals_oracle(_loss, _oracle, Z, POSTERIOR, constant=1, metrics=metrics)


def test_loss_does_not_depend_on_the_order_of_classes():
    order = np.array([3, 0, 4, 2, 1])
    value = float(_loss(Z)[0])
    assert _loss(Z, POSTERIOR[:, order])[0] == pytest.approx(value, rel=1e-6)


def test_same_on_8_devices_finite_when_degenerate_and_in_bfloat16():
    checks.assert_same_on_8_devices(_loss, Z, rows_stay=False)
    checks.assert_finite_when_degenerate(_loss, Z)
    checks.assert_computes_in_float32(_loss, Z)


@pytest.mark.parametrize("posterior", [np.eye(B), np.ones((B, 1))])
@pytest.mark.parametrize("views", [1, 2])
def test_loss_is_finite_without_pairs_of_one_kind(posterior, views):
    assert np.isfinite(_loss(Z[:, :views], posterior)[0])


@pytest.mark.parametrize(
    ("z", "options", "message"),
    [
        (Z[:, 0], {}, r"must be \[b, v, d\] and \[b, k\]"),
        (Z[1:], {}, r"posterior \(16, 5\)"),
        (Z, {"temperature": 0}, "temperature must be positive, got 0; .* got 1.0"),
        (Z, {"trust": 1.1}, r"trust must be in \[0, 1\], got 1\.1"),
    ],
)
def test_invalid_arguments_raise(z, options, message):
    with pytest.raises(ValueError, match=message):
        losses.same_pair(z, POSTERIOR, **options)
