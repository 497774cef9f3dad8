"""The pair losses against their definitions, one pair of rows at a time."""

import itertools

import checks
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses

B, K, D = 16, 5, 3
LOGITS, Z = checks.rows(B, 2, K), checks.rows(B, 2, D, seed=1)
LABEL = np.array([0, 3, 3, 1, 0, 0, 2, 1, 3, 4, 4, 2, 0, 1, 3, 0], np.int32)


def _pairs(logits, z):
    """(cross-entropy, P of the right answer, squared distance) of same and of different pairs."""
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    found = {True: [], False: []}
    places = itertools.product(range(B), range(2))
    for (i, v), (j, w) in itertools.combinations(places, 2):
        same = LABEL[i] == LABEL[j]
        right = p[i, v] @ p[j, w] if same else 1 - p[i, v] @ p[j, w]
        found[same].append((-np.log(right + 1e-7), right, np.square(z[i, v] - z[j, w]).sum()))
    return [np.mean(found[kind], axis=0) for kind in (True, False)]


def _oracle(logits, z):
    same, different = _pairs(logits, z)
    return (same[0] + different[0]) / 2 + 0.7 * same[2]


def _loss(logits, z, label=LABEL):
    entropy, distance, metrics = losses.same_pair(logits, z, jnp.asarray(label, jnp.int32))
    return entropy + 0.7 * distance, metrics


def test_loss_equals_the_definition():
    same, different = _pairs(LOGITS, Z)
    metrics = {"same_recall": same[1], "different_recall": different[1]}
    checks.equals(_loss, _oracle, LOGITS, Z, metrics=metrics)


def test_what_the_classes_are_called_does_not_matter():
    order = np.array([3, 0, 4, 2, 1])
    value = float(_loss(LOGITS, Z)[0])
    assert _loss(LOGITS[..., order], Z)[0] == pytest.approx(value, rel=1e-6)
    assert _loss(LOGITS, Z, order[LABEL])[0] == pytest.approx(value, rel=1e-6)


def test_devices_degenerate_rows_and_narrow_types():
    checks.devices_do_not_matter(_loss, LOGITS, Z, rows_stay=False)
    checks.finite_when_degenerate(_loss, LOGITS, Z)
    # A sure classifier is right or wrong beyond float32's digits.
    checks.finite_when_degenerate(_loss, 1e4 * LOGITS, Z)
    checks.keeps_at_least_float32(_loss, LOGITS, Z)


@pytest.mark.parametrize("label", [np.zeros(B), np.arange(B)])
def test_without_pairs_of_a_kind_the_loss_is_finite(label):
    assert np.isfinite(_loss(LOGITS, Z, label)[0])
    assert np.isfinite(_loss(LOGITS[:, :1], Z[:, :1], label)[0])


@pytest.mark.parametrize(
    ("logits", "label", "message"),
    [(LOGITS[:, :1], LABEL, r"want \[b, v, k\]"), (LOGITS, LABEL[1:], r"label of shape \(15,\)")],
)
def test_refusals(logits, label, message):
    with pytest.raises(ValueError, match=message):
        losses.same_pair(logits, Z, label)
