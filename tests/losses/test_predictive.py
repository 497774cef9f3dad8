"""The loss of contrastive predictive coding against its equation in float64."""

import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses

B, R, P, D = 8, 5, 4, 3
POSITIVE = np.array([3, 0, 1, 3, 2])
PREDICTIONS = checks.rows(B, R, D) * 0.7
TARGETS = checks.rows(B, P, D, seed=1)
SCALE = 0.5


def _scores(predictions, targets):
    """Score of every prediction with every target of the batch: [b, r, b * p]."""
    return SCALE * np.einsum("brd,ad->bra", predictions, targets.reshape(-1, D))


def _own(scores):
    """Scores of the predicted positions [b, r]."""
    return np.array([[scores[i, j, i * P + POSITIVE[j]] for j in range(R)] for i in range(B)])


def oracle(predictions, targets):
    scores = _scores(predictions, targets)
    return (np.log(np.exp(scores).sum(-1)) - _own(scores)).mean()


def loss(predictions, targets, **options):
    return losses.predictive_info_nce(predictions, targets, POSITIVE, scale=SCALE, **options)


def test_equals_the_equation_with_gradient_and_metrics():
    scores = _scores(PREDICTIONS, TARGETS)
    closer = (scores > _own(scores)[..., None]).sum(-1)
    metrics = {
        "contrastive_accuracy": (closer < 1).mean(),
        "contrastive_chance": 1 / (B * P),
        "contrastive_top5": (closer < 5).mean(),
    }
    assert 0 < metrics["contrastive_accuracy"] < metrics["contrastive_top5"] < 1
    checks.assert_equals_oracle(loss, oracle, PREDICTIONS, TARGETS, metrics=metrics)


def test_two_positions_by_hand():
    predictions, targets = jnp.asarray([[[2.0]]]), jnp.asarray([[[0.0], [1.0]]])
    value, _ = losses.predictive_info_nce(predictions, targets, np.array([1]))
    assert float(value) == pytest.approx(np.log1p(np.exp(-2)), rel=1e-6)


@pytest.mark.parametrize("transport", ["gather", "ring"])
def test_8_devices_compute_the_same(transport):
    def on_devices(predictions, targets):
        return loss(predictions, targets, transport=transport)

    checks.assert_same_on_8_devices(on_devices, PREDICTIONS, TARGETS, rows_stay=False)


def test_degenerate_rows_give_finite_numbers():
    checks.assert_finite_when_degenerate(loss, PREDICTIONS, TARGETS)


def test_equal_targets_are_never_recognised():
    _, metrics = loss(jnp.asarray(PREDICTIONS), jnp.full((B, P, D), 0.7))
    assert float(metrics["contrastive_accuracy"]) == 0


def test_bfloat16_products_are_summed_in_float32():
    narrow = [jnp.asarray(a, jnp.bfloat16) for a in (PREDICTIONS, TARGETS)]
    value, metrics = loss(*narrow)
    assert {v.dtype for v in (value, *metrics.values())} == {jnp.dtype(jnp.float32)}
    assert float(value) == pytest.approx(oracle(PREDICTIONS, TARGETS), rel=1e-2)


@pytest.mark.parametrize("size", [10, 1000])
def test_scores_of_any_size_have_a_finite_loss_and_gradient(size):
    """Leads of hundreds of nats would overflow exp in float32."""
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    arrays = (size * jnp.asarray(a, jnp.float32) for a in (PREDICTIONS, TARGETS))
    (value, _), gradient = step(*arrays)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() and np.any(g) for g in gradient)


def test_large_lead_costs_its_size_and_keeps_its_gradient():
    """Checks a negative 300 nats above the positive, beyond the limit of the sum."""
    predictions = jnp.asarray([[[1.0, 0.0]]], jnp.float32)
    targets = jnp.asarray([[[0.0, 0.0], [300.0, 0.0], [-300.0, 0.0]]], jnp.float32)

    def value(predictions, targets):
        return losses.predictive_info_nce(predictions, targets, np.array([0]))[0]

    assert float(value(predictions, targets)) == pytest.approx(300, rel=1e-6)
    rows, columns = jax.grad(value, argnums=(0, 1))(predictions, targets)
    # The gradient of log(e^0 + e^300 + e^-300) - 0: of the lead, in both factors.
    np.testing.assert_allclose(rows, [[[300.0, 0.0]]], rtol=1e-5)
    np.testing.assert_allclose(columns[0, :, 0], [-1, 1, 0], atol=1e-5)


def test_moderate_scores_are_exact_in_float32():
    """Leads of 35 nats, close to the limit, in float32."""
    predictions, targets = 2 * PREDICTIONS, 2.5 * TARGETS
    scores = _scores(predictions, targets)
    assert 30 < (scores.max(-1) - _own(scores)).max() < 40
    value, _ = loss(jnp.asarray(predictions, jnp.float32), jnp.asarray(targets, jnp.float32))
    assert float(value) == pytest.approx(oracle(predictions, targets), rel=1e-5)


@pytest.mark.parametrize(
    ("predictions", "targets", "positive", "scale", "message"),
    [
        ((B, R, D), (B, P, D + 1), POSITIVE, 1, r"\[b, r, d\]"),
        ((B, R, D), (B + 1, P, D), POSITIVE, 1, r"\[b, r, d\]"),
        ((B, D), (B, D), POSITIVE, 1, r"\[b, r, d\]"),
        ((B, R, D), (B, P, D), POSITIVE[1:], 1, "one of 4 positions"),
        ((B, R, D), (B, P, D), POSITIVE + 1, 1, "one of 4 positions"),
        ((B, R, D), (B, 1, D), 0 * POSITIVE, 1, "at least 2"),
        ((B, R, D), (B, P, D), POSITIVE, 0, "scale must be positive"),
    ],
)
def test_bad_arguments_are_refused(predictions, targets, positive, scale, message):
    arrays = jnp.zeros(predictions), jnp.zeros(targets)
    with pytest.raises(ValueError, match=message):
        losses.predictive_info_nce(*arrays, positive, scale=scale)


GROUPS = np.array([2, 0, 2, 1, 0, 0, 2, 5])  # the groups of the examples 3 and 7 are alone


def _group_oracle(predictions, targets, groups=GROUPS, places=None):
    """Cross-entropy of each prediction among the targets of its group, one by one."""
    total = []
    for i in range(B):
        candidates = targets[groups == groups[i]].reshape(-1, D)
        for j in range(R):
            own = targets[i, POSITIVE[j] if places is None else places[i, j]]
            scores = SCALE * candidates @ predictions[i, j]
            total.append(np.log(np.exp(scores).sum()) - SCALE * own @ predictions[i, j])
    return np.mean(total)


@pytest.mark.parametrize("groups", [GROUPS, np.arange(B)])
def test_groups_limit_the_candidates(groups):
    def grouped(predictions, targets):
        return loss(predictions, targets, groups=jnp.asarray(groups))

    def oracle(predictions, targets):
        return _group_oracle(predictions, targets, groups)

    checks.assert_equals_oracle(grouped, oracle, PREDICTIONS, TARGETS)
    candidates = (groups[:, None] == groups[None, :]).sum(1) * P
    _, metrics = grouped(jnp.asarray(PREDICTIONS), jnp.asarray(TARGETS))
    assert float(metrics["contrastive_chance"]) == pytest.approx((1 / candidates).mean(), rel=1e-6)


def test_groups_on_8_devices_compute_the_same():
    def on_devices(predictions, targets):
        return loss(predictions, targets, groups=jnp.asarray(GROUPS))

    checks.assert_same_on_8_devices(on_devices, PREDICTIONS, TARGETS, rows_stay=False)


def test_examples_may_predict_different_positions():
    places = np.random.default_rng(4).integers(0, P, (B, R))

    def each(predictions, targets):
        positive = jnp.asarray(places)
        return losses.predictive_info_nce(predictions, targets, positive, scale=SCALE)

    def oracle(predictions, targets):
        return _group_oracle(predictions, targets, np.zeros(B, int), places)

    checks.assert_equals_oracle(each, oracle, PREDICTIONS, TARGETS)
