"""Sinkhorn's codes, SwAV and DINO against their papers' algorithms in float64."""

import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses

B, V, L, K, Q = 16, 2, 3, 5, 24


def _cosines(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape)


FULL, LOCAL, QUEUE = (_cosines(*s, K, seed=i) for i, s in enumerate(((B, V), (B, L), (Q, V))))
TEACHER, CENTER = _cosines(B, V, K, seed=4), _cosines(K, seed=5) / 4


def _sinkhorn(scores, epsilon, iterations):
    """The appendix's pseudo-code, in its order: k x n, marginals 1/k and 1/n."""
    q = np.exp(scores / epsilon).T
    q /= q.sum()
    k, n = q.shape
    for _ in range(iterations):
        q *= (np.ones(k) / k / q.sum(1))[:, None]
        q *= (np.ones(n) / n / q.sum(0))[None, :]
    return (q / q.sum(0)).T


def _softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def _cross_entropies(targets, students, temperature):
    """Mean over examples and over all (target, student) pairs of different views."""
    found = [
        -targets[n, i] @ np.log(_softmax(students[n, j] / temperature))
        for n in range(len(targets))
        for i in range(targets.shape[1])
        for j in range(students.shape[1])
        if j != i
    ]
    return np.mean(found)


def _codes(full, queue=None):
    """Codes of every view, from its own problem; held fixed while the loss is derived."""
    problems = [full] if queue is None else [full, queue]
    return np.stack(
        [
            _sinkhorn(np.concatenate([p[:, i] for p in problems]), 0.07, 3)[: len(full)]
            for i in range(full.shape[1])
        ],
        axis=1,
    )


def _entropies(targets):
    def entropy(p):
        return -np.sum(p * np.log(p))

    flat = targets.reshape(-1, K)
    return {
        "target_entropy": np.mean([entropy(p) for p in flat]),
        "marginal_entropy": entropy(flat.mean(0)),
    }


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_is_the_algorithm(iterations):
    with jax.enable_x64(True):
        codes = jax.jit(losses.sinkhorn, static_argnames="iterations")
        got = codes(jnp.asarray(FULL[:, 0]), epsilon=0.05, iterations=iterations)
    np.testing.assert_allclose(got, _sinkhorn(FULL[:, 0], 0.05, iterations), rtol=1e-11)


def test_sinkhorn_balances():
    balance = jax.jit(losses.sinkhorn, static_argnames="iterations")
    codes = balance(jnp.asarray(FULL[:, 0], jnp.float32), iterations=100)
    np.testing.assert_allclose(codes.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(codes.sum(0), B / K, rtol=1e-3)


def test_sinkhorn_of_views_and_queue_are_problems_of_their_own():
    with jax.enable_x64(True):
        got = jax.jit(losses.sinkhorn)(FULL, epsilon=0.07, queue=QUEUE)
        got = np.asarray(got)
    np.testing.assert_allclose(got, _codes(FULL, QUEUE), rtol=1e-11)
    assert np.abs(got - _codes(FULL)).max() > 0.01


def test_sinkhorn_of_any_scores_is_finite():
    scores = jnp.asarray(FULL[:, 0], jnp.float32)
    codes_of = jax.jit(losses.sinkhorn)
    np.testing.assert_allclose(codes_of(scores + 64), codes_of(scores), rtol=1e-3)
    for far in (1e4 * scores, scores.at[3].add(-1e4)):  # exp of the latter's row is 0
        codes = codes_of(far)
        np.testing.assert_allclose(codes.sum(1), 1, rtol=1e-5)


def _swav(full, local=None, queue=None):
    return losses.swav(full, local=local, queue=queue, epsilon=0.07)


def _swav_oracle(full, local=None, queue=None):
    """With the codes of the unmoved scores: they carry no gradient."""
    students = full if local is None else np.concatenate([full, local], axis=1)
    codes = _codes(FULL, QUEUE if queue is not None else None)
    return _cross_entropies(codes, students, 0.1)


def test_swav_equals_the_equations():
    checks.equals(_swav, _swav_oracle, FULL, metrics=_entropies(_codes(FULL)))
    checks.equals(_swav, _swav_oracle, FULL, LOCAL)
    checks.equals(
        _swav, _swav_oracle, FULL, LOCAL, QUEUE, constant=1, metrics=_entropies(_codes(FULL, QUEUE))
    )


def _dino(student, local, teacher, center):
    return losses.dino(student, teacher, center=center, local=local, teacher_temperature=0.05)


def _dino_targets(teacher, center):
    return np.stack([[_softmax((t - center) / 0.05) for t in views] for views in teacher])


def _dino_oracle(student, local, teacher, center):
    students = student if local is None else np.concatenate([student, local], axis=1)
    return _cross_entropies(_dino_targets(teacher, center), students, 0.1)


def test_dino_equals_the_equations():
    metrics = _entropies(_dino_targets(TEACHER, CENTER))
    checks.equals(_dino, _dino_oracle, FULL, LOCAL, TEACHER, CENTER, constant=2, metrics=metrics)
    checks.equals(
        lambda s, t, c: _dino(s, None, t, c), lambda s, t, c: _dino_oracle(s, None, t, c),
        FULL, TEACHER, CENTER, constant=2,
    )  # fmt: skip


def test_one_full_size_view_teaches_the_small_crops():
    student, teacher = FULL[:, :1], TEACHER[:, :1]
    checks.equals(
        lambda local: _dino(jnp.asarray(student), local, jnp.asarray(teacher), CENTER),
        lambda local: _dino_oracle(student, local, teacher, CENTER),
        LOCAL,
    )


def test_temperatures_may_follow_a_schedule():
    student, teacher = (jnp.asarray(x, jnp.float32) for x in (FULL, TEACHER))
    loss = jax.jit(
        lambda t: losses.dino(student, teacher, center=jnp.zeros(K), teacher_temperature=t)[0]
    )
    want = _cross_entropies(_dino_targets(TEACHER, np.zeros(K)), FULL, 0.1)
    assert loss(0.05) == pytest.approx(want, rel=1e-5)


def test_center():
    got = losses.dino_center(jnp.asarray(CENTER, jnp.float32), TEACHER, momentum=0.8)
    want = 0.8 * CENTER + 0.2 * TEACHER.reshape(-1, K).mean(0)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def _dino_centred(student, local, teacher):
    return _dino(student, local, teacher, jnp.asarray(CENTER, jnp.float32))


@pytest.mark.parametrize(
    ("loss", "arrays"),
    [(_swav, (FULL, LOCAL, QUEUE)), (_dino_centred, (FULL, LOCAL, TEACHER))],
    ids=["swav", "dino"],
)
def test_devices_degenerate_rows_and_narrow_types(loss, arrays):
    checks.devices_do_not_matter(loss, *arrays, rows_stay=True)
    checks.finite_when_degenerate(loss, *arrays)
    checks.keeps_at_least_float32(loss, *arrays)


def test_a_collapse_shows_in_the_metrics():
    equal = np.tile(FULL[:1, :1], (B, V, 1)).astype(np.float32)
    metrics = jax.jit(losses.swav)(equal)[1]
    assert metrics["target_entropy"] == pytest.approx(np.log(K), rel=1e-5)
    metrics = jax.jit(losses.dino)(equal, equal, center=jnp.zeros(K), teacher_temperature=1e-3)[1]
    assert max(metrics.values()) < 1e-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.swav(FULL[:, 0]), r"want \[b, v, k\]"),
        (lambda: losses.swav(FULL[:, :1]), "two views or more"),
        (lambda: losses.swav(FULL, local=LOCAL[1:]), r"local views of shape \(15, 3, 5\)"),
        (lambda: losses.swav(FULL, local=LOCAL[:, 0]), "local views"),
        (lambda: losses.swav(FULL, queue=QUEUE[:, :1]), "queue of shape"),
        (lambda: losses.swav(FULL, temperature=0), "temperature 0: want a number above 0"),
        (lambda: losses.sinkhorn(FULL, epsilon=-1), "epsilon -1"),
        (lambda: losses.sinkhorn(FULL, iterations=0), "iterations 0"),
        (lambda: losses.sinkhorn(FULL[0, 0]), "scores of shape"),
        (
            lambda: losses.dino(FULL, LOCAL, center=CENTER, teacher_temperature=0.05),
            "teacher of shape",
        ),
        (
            lambda: losses.dino(FULL, TEACHER, center=CENTER[1:], teacher_temperature=0.05),
            "center of shape",
        ),
        (
            lambda: losses.dino(FULL, TEACHER, center=CENTER, teacher_temperature=0.0),
            "teacher_temperature",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
