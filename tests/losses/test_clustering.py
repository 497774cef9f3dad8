"""Sinkhorn codes, SwAV and DINO against the algorithms of their papers in float64."""

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
    """The pseudo-code of the paper's appendix, in its order: k x n, marginals 1/k and 1/n."""
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
    cross_entropies = [
        -targets[n, i] @ np.log(_softmax(students[n, j] / temperature))
        for n in range(len(targets))
        for i in range(targets.shape[1])
        for j in range(students.shape[1])
        if j != i
    ]
    return np.mean(cross_entropies)


def _codes(full, queue=None):
    """Codes of every view, computed separately; constant when the loss is differentiated."""
    parts = [full] if queue is None else [full, queue]
    return np.stack(
        [
            _sinkhorn(np.concatenate([part[:, i] for part in parts]), 0.07, 3)[: len(full)]
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
def test_sinkhorn_equals_the_paper_s_algorithm(iterations):
    with jax.enable_x64(True):
        codes = jax.jit(losses.sinkhorn, static_argnames="iterations")
        got = codes(jnp.asarray(FULL[:, 0]), epsilon=0.05, iterations=iterations)
    np.testing.assert_allclose(got, _sinkhorn(FULL[:, 0], 0.05, iterations), rtol=1e-11)


def test_sinkhorn_codes_use_prototypes_equally():
    balance = jax.jit(losses.sinkhorn, static_argnames="iterations")
    codes = balance(jnp.asarray(FULL[:, 0], jnp.float32), iterations=100)
    np.testing.assert_allclose(codes.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(codes.sum(0), B / K, rtol=1e-3)


def test_sinkhorn_balances_each_view_separately_with_its_queue():
    with jax.enable_x64(True):
        got = jax.jit(losses.sinkhorn)(FULL, epsilon=0.07, queue=QUEUE)
        got = np.asarray(got)
    np.testing.assert_allclose(got, _codes(FULL, QUEUE), rtol=1e-11)
    assert np.abs(got - _codes(FULL)).max() > 0.01


def test_sinkhorn_codes_are_finite_for_extreme_scores():
    scores = jnp.asarray(FULL[:, 0], jnp.float32)
    sinkhorn = jax.jit(losses.sinkhorn)
    np.testing.assert_allclose(sinkhorn(scores + 64), sinkhorn(scores), rtol=1e-3)
    for far in (1e4 * scores, scores.at[3].add(-1e4)):  # exp of the latter's row is 0
        codes = sinkhorn(far)
        np.testing.assert_allclose(codes.sum(1), 1, rtol=1e-5)


def _swav(full, local=None, queue=None):
    return losses.swav(full, local=local, queue=queue, epsilon=0.07)


def _swav_oracle(full, local=None, queue=None):
    """Uses the codes of the unperturbed scores, because codes carry no gradient."""
    students = full if local is None else np.concatenate([full, local], axis=1)
    codes = _codes(FULL, QUEUE if queue is not None else None)
    return _cross_entropies(codes, students, 0.1)


def test_swav_equals_the_paper_s_equations():
    checks.assert_equals_oracle(_swav, _swav_oracle, FULL, metrics=_entropies(_codes(FULL)))
    checks.assert_equals_oracle(_swav, _swav_oracle, FULL, LOCAL)
    checks.assert_equals_oracle(
        _swav, _swav_oracle, FULL, LOCAL, QUEUE, constant=1, metrics=_entropies(_codes(FULL, QUEUE))
    )


def _dino(student, local, teacher, center):
    return losses.dino(student, teacher, center=center, local=local, teacher_temperature=0.05)


def _dino_targets(teacher, center):
    return np.stack([[_softmax((t - center) / 0.05) for t in views] for views in teacher])


def _dino_oracle(student, local, teacher, center):
    students = student if local is None else np.concatenate([student, local], axis=1)
    return _cross_entropies(_dino_targets(teacher, center), students, 0.1)


def test_dino_equals_the_paper_s_equations():
    metrics = _entropies(_dino_targets(TEACHER, CENTER))
    checks.assert_equals_oracle(
        _dino, _dino_oracle, FULL, LOCAL, TEACHER, CENTER, constant=2, metrics=metrics
    )
    checks.assert_equals_oracle(
        lambda s, t, c: _dino(s, None, t, c), lambda s, t, c: _dino_oracle(s, None, t, c),
        FULL, TEACHER, CENTER, constant=2,
    )  # fmt: skip


def test_dino_supports_one_full_size_view_with_small_crops():
    student, teacher = FULL[:, :1], TEACHER[:, :1]
    checks.assert_equals_oracle(
        lambda local: _dino(jnp.asarray(student), local, jnp.asarray(teacher), CENTER),
        lambda local: _dino_oracle(student, local, teacher, CENTER),
        LOCAL,
    )


def test_dino_temperature_can_be_traced():
    student, teacher = (jnp.asarray(x, jnp.float32) for x in (FULL, TEACHER))
    loss = jax.jit(
        lambda t: losses.dino(student, teacher, center=jnp.zeros(K), teacher_temperature=t)[0]
    )
    want = _cross_entropies(_dino_targets(TEACHER, np.zeros(K)), FULL, 0.1)
    assert loss(0.05) == pytest.approx(want, rel=1e-5)


def test_dino_center_is_a_moving_average():
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
def test_same_on_8_devices_finite_when_degenerate_and_in_bfloat16(loss, arrays):
    checks.assert_same_on_8_devices(loss, *arrays, rows_stay=True)
    checks.assert_finite_when_degenerate(loss, *arrays)
    checks.assert_computes_in_float32(loss, *arrays)


def test_metrics_show_a_collapse():
    equal = np.tile(FULL[:1, :1], (B, V, 1)).astype(np.float32)
    metrics = jax.jit(losses.swav)(equal)[1]
    assert metrics["target_entropy"] == pytest.approx(np.log(K), rel=1e-5)
    metrics = jax.jit(losses.dino)(equal, equal, center=jnp.zeros(K), teacher_temperature=1e-3)[1]
    assert max(metrics.values()) < 1e-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.swav(FULL[:, 0]), r"expected \[b, v, k\]"),
        (lambda: losses.swav(FULL[:, :1]), "at least two views"),
        (lambda: losses.swav(FULL, local=LOCAL[1:]), r"local views \(15, 3, 5\)"),
        (lambda: losses.swav(FULL, local=LOCAL[:, 0]), "local views"),
        (lambda: losses.swav(FULL, queue=QUEUE[:, :1]), r"queue \(24, 1, 5\)"),
        (lambda: losses.swav(FULL, temperature=0), "temperature must be positive, got 0"),
        (lambda: losses.sinkhorn(FULL, epsilon=-1), "epsilon must be positive, got -1"),
        (lambda: losses.sinkhorn(FULL, iterations=0), "iterations must be positive, got 0"),
        (lambda: losses.sinkhorn(FULL[0, 0]), "scores has shape"),
        (
            lambda: losses.dino(FULL, LOCAL, center=CENTER, teacher_temperature=0.05),
            r"teacher \(16, 3, 5\)",
        ),
        (
            lambda: losses.dino(FULL, TEACHER, center=CENTER[1:], teacher_temperature=0.05),
            r"center \(4,\)",
        ),
        (
            lambda: losses.dino(FULL, TEACHER, center=CENTER, teacher_temperature=0.0),
            "teacher_temperature",
        ),
    ],
)
def test_invalid_arguments_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()
