"""Margin and triplet losses against their definitions, one pair and one triplet at a time."""

import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses
from ssl_jax.losses import metric

B, D = 16, 4
Z = checks.rows(B, 1, D) + 0.6 * checks.rows(B, 2, D, seed=1)


def _rows(z):
    """(row, number of its example) of every view."""
    return [(view, i) for i, views in enumerate(z) for view in views]


def _pair_distances(z, margin):
    """Distances of positive pairs, distances of negative pairs (each pair once)."""
    distances = {True: [], False: []}
    rows = _rows(z)
    for n, (a, i) in enumerate(rows):
        for b, j in rows[n + 1 :]:
            distances[i == j].append(np.linalg.norm(a - b))
    return np.array(distances[True]), np.array(distances[False])


def _margin(z, margin=3.0):
    positive, negative = _pair_distances(z, margin)
    hinge = np.maximum(0, margin - negative)
    return np.mean(0.5 * positive**2) + np.mean(0.5 * hinge**2)


def _triplet_losses(z, margin, mining):
    """Hinges of all selected triplets."""
    rows = [(view / np.linalg.norm(view), i) for view, i in _rows(z)]
    hinges = []
    for n, (anchor, i) in enumerate(rows):
        positive = np.sum((anchor - rows[n ^ 1][0]) ** 2)
        negatives = sorted(np.sum((anchor - b) ** 2) for b, j in rows if j != i)
        farther = [distance for distance in negatives if distance > positive]
        selected = {
            "all": negatives,
            "batch_hard": negatives[:1],
            "semi_hard": farther[:1] or negatives[:1],
        }[mining]
        hinges += [max(0, positive - distance + margin) for distance in selected]
    return np.array(hinges)


def test_margin_contrastive_equals_the_equation():
    positive, negative = _pair_distances(Z, 3.0)
    metrics = {
        "positive_distance": positive.mean(),
        "negative_distance": negative.mean(),
        "active": np.mean(negative < 3.0),
    }
    assert 0.1 < metrics["active"] < 0.9
    checks.assert_equals_oracle(
        lambda z: losses.margin_contrastive(z, margin=3.0), _margin, Z, metrics=metrics
    )


@pytest.mark.parametrize("mining", ["semi_hard", "batch_hard", "all"])
def test_triplet_equals_the_definition(mining):
    hinges = _triplet_losses(Z, 0.2, mining)
    unit = Z / np.linalg.norm(Z, axis=-1, keepdims=True)
    positive, negative = _pair_distances(unit, 0.2)
    metrics = {
        "positive_distance": positive.mean(),
        "negative_distance": negative.mean(),
        "active": np.mean(hinges > 0),
    }
    assert 0.05 < metrics["active"] < 1
    checks.assert_equals_oracle(
        lambda z: losses.triplet(z, mining=mining),
        lambda z: _triplet_losses(z, 0.2, mining).mean(),
        Z,
        metrics=metrics,
    )


def _symmetric_hinges(z, margin, mining):
    """Hinges of the selected triplets in both directions, one pair after the other."""
    sides = (z / np.linalg.norm(z, axis=-1, keepdims=True)).swapaxes(0, 1)
    hinges = []
    for own, other in (sides, sides[::-1]):
        for i, anchor in enumerate(own):
            positive = np.sum((anchor - other[i]) ** 2)
            distances = [np.sum((anchor - row) ** 2) for j, row in enumerate(other) if j != i]
            negatives = sorted(distances)
            farther = [distance for distance in negatives if distance > positive]
            selected = {
                "all": negatives,
                "batch_hard": negatives[:1],
                "semi_hard": farther[:1] or negatives[:1],
            }[mining]
            hinges += [max(0, positive - distance + margin) for distance in selected]
    return np.array(hinges)


@pytest.mark.parametrize("mining", ["semi_hard", "batch_hard", "all"])
def test_symmetric_triplet_equals_the_definition(mining):
    hinges = _symmetric_hinges(Z, 0.2, mining)
    unit = Z / np.linalg.norm(Z, axis=-1, keepdims=True)
    across = np.linalg.norm(unit[:, None, 0] - unit[None, :, 1], axis=-1)
    metrics = {
        "positive_distance": np.diag(across).mean(),
        "negative_distance": across[~np.eye(B, dtype=bool)].mean(),
        "active": np.mean(hinges > 0),
    }
    assert 0.05 < metrics["active"] < 1
    checks.assert_equals_oracle(
        lambda z: losses.symmetric_triplet(z, mining=mining),
        lambda z: _symmetric_hinges(z, 0.2, mining).mean(),
        Z,
        metrics=metrics,
    )


def test_symmetric_triplet_ignores_negatives_of_the_same_side():
    # Pairs at 0 and 20 degrees, and at 5 and 120: the nearest negatives are on the same side.
    z = _views_at_angles((0, 20), (5, 120))
    d = {a: 2 - 2 * np.cos(np.deg2rad(a)) for a in (15, 20, 115, 120)}
    hinges = [d[20] - d[120], d[115] - d[15], d[20] - d[15], d[115] - d[120]]
    want = np.mean([max(0, hinge + 0.2) for hinge in hinges])
    loss, _ = losses.symmetric_triplet(z, mining="batch_hard")
    assert float(loss) == pytest.approx(want, rel=1e-5)
    swapped, _ = losses.symmetric_triplet(z[:, ::-1], mining="batch_hard")
    assert float(swapped) == pytest.approx(want, rel=1e-5)


def _views_at_angles(*degrees):
    """Two views of each example on the unit circle, at angles in degrees."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], -1).astype(np.float32)


_triplet = jax.jit(losses.triplet, static_argnames=("margin", "mining"))
_margin_contrastive = jax.jit(losses.margin_contrastive, static_argnames="margin")


def _gradient(loss, z):
    return jax.jit(jax.grad(loss, has_aux=True))(z)[0]


def test_semi_hard_uses_the_nearest_negative_if_none_is_farther():
    # Distances computed by hand: the positives are the farthest pairs.
    z = _views_at_angles((0, 180), (60, 240))
    near, across = 2 - 2 * np.cos(np.deg2rad(60)), 4.0
    loss, metrics = _triplet(z, margin=0.2, mining="semi_hard")
    assert float(loss) == pytest.approx(across - near + 0.2, rel=1e-5)
    assert metrics["active"] == 1
    assert float(_triplet(z, mining="batch_hard")[0]) == pytest.approx(float(loss))


def test_semi_hard_skips_negatives_nearer_than_the_positive():
    # Seen from 0 degrees, the positive is at 60 and the negatives at 30 (nearer) and 70 (farther).
    z = _views_at_angles((0, 60), (30, 70))
    d = {a: 2 - 2 * np.cos(np.deg2rad(a)) for a in (10, 30, 40, 60, 70)}
    anchors = [d[60] - d[70], d[60] - d[30], d[40] - d[30], d[40] - d[70]]
    # Anchor 60 has negatives at distances 30 and 10, both nearer than its positive: the fallback.
    # Anchor 30 has negatives 0 and 60 at distance 30, nearer than its positive at distance 40.
    # Anchor 70 has negatives 60 and 0 at distances 10 and 70.
    anchors[1], anchors[2] = d[60] - d[10], d[40] - d[30]
    want = np.mean([max(0, a + 0.2) for a in anchors])
    assert float(_triplet(z, mining="semi_hard")[0]) == pytest.approx(want, rel=1e-4)


def test_equally_distant_negatives_share_the_gradient():
    z = _views_at_angles((0, 10), (90, 90))  # both views of the second example are the same
    gradient = _gradient(lambda z: losses.triplet(z, margin=3.0, mining="batch_hard"), z)
    np.testing.assert_allclose(gradient[1, 0], gradient[1, 1], rtol=1e-5)
    assert np.abs(gradient[1]).max() > 0.1


def test_equal_rows_give_each_other_no_gradient():
    z = jnp.full((B, 2, D), 0.7)
    loss, metrics = _margin_contrastive(z, margin=2.0)
    assert loss == pytest.approx(2.0**2 / 2, rel=1e-5)
    assert metrics["negative_distance"] == pytest.approx(0, abs=1e-6)
    gradient = _gradient(lambda z: losses.margin_contrastive(z, margin=2.0), z)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_square_root_has_zero_gradient_at_zero():
    assert jax.grad(metric._root)(0.0) == 0
    assert jax.grad(metric._root)(4.0) == 0.25


def test_distances_stay_accurate_far_from_the_origin():
    near = jnp.asarray(Z, jnp.float32)
    want = float(_margin_contrastive(near, margin=3.0)[0])
    assert float(_margin_contrastive(near + 4096, margin=3.0)[0]) == pytest.approx(want, rel=1e-3)


LOSSES = {
    "margin": lambda z: losses.margin_contrastive(z, margin=3.0),
    "semi_hard": losses.triplet,
    "batch_hard": lambda z: losses.triplet(z, mining="batch_hard"),
    "all": lambda z: losses.triplet(z, mining="all"),
    "symmetric": losses.symmetric_triplet,
    "symmetric_batch_hard": lambda z: losses.symmetric_triplet(z, mining="batch_hard"),
    "symmetric_all": lambda z: losses.symmetric_triplet(z, mining="all"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_same_on_8_devices_finite_when_degenerate_and_in_bfloat16(name):
    checks.assert_same_on_8_devices(LOSSES[name], Z, rows_stay=False)
    checks.assert_finite_when_degenerate(LOSSES[name], Z)
    checks.assert_computes_in_float32(LOSSES[name], Z)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.margin_contrastive(Z[:1]), "at least 2"),
        (lambda: losses.margin_contrastive(Z[:, 0]), r"must be \[b, 2, d\]"),
        (lambda: losses.margin_contrastive(Z, margin=0), "margin must be positive, got 0"),
        (lambda: losses.triplet(Z, margin=float("nan")), "margin must be positive, got nan"),
        (lambda: losses.triplet(Z, mining="hard"), "semi_hard, batch_hard, all"),
        (lambda: losses.symmetric_triplet(Z[:1]), "at least 2"),
        (lambda: losses.symmetric_triplet(Z, margin=-1), "margin must be positive, got -1"),
        (lambda: losses.symmetric_triplet(Z, mining="hard"), "semi_hard, batch_hard, all"),
    ],
)
def test_invalid_arguments_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()
