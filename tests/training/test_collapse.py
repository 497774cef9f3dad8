"""Signals of collapse against NumPy's eigenvalues and hand-worked values; when the alarm speaks."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import parallel
from ssl_jax.training import collapse
from ssl_jax.training.collapse import PATIENCE, RANK_FLOOR, SETTLED, STD_FLOOR, Alarm

signals = jax.jit(collapse.collapse_signals)


def oracle(features):
    """The definitions in float64, by eigenvalues and all pairs."""
    x = np.asarray(features, np.float64)[:: math.ceil(len(features) / 256)]
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    first = x[:, 0]
    eigenvalues = np.linalg.eigvalsh(np.cov(first.T, bias=True))
    distances = np.square(first[:, None] - first[None]).sum(-1)
    pairs = np.exp(-2 * distances)[~np.eye(len(first), dtype=bool)]
    return {
        "feature_std": first.std(0).mean() * np.sqrt(x.shape[-1]),
        "effective_rank": eigenvalues.sum() ** 2 / np.square(eigenvalues).sum(),
        "feature_uniformity": np.log(np.mean(pairs)),
        "feature_alignment": np.square(x[:, 0] - x[:, 1]).sum(-1).mean(),
    }


def random_features(b, spread=1.0, f=12):
    """[b, 3, f]: a shape of its own for every dimension around a common mean; views are near."""
    rng = np.random.Generator(np.random.PCG64(b))
    x = 1 + spread * np.linspace(0.2, 1, f) * rng.normal(size=(b, 1, f))
    x = x + 0.3 * spread * rng.normal(size=(b, 3, f))
    return (x * rng.uniform(0.1, 10, (b, 3, 1))).astype(np.float32)


def assert_signals(found, wanted, **tolerance):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, err_msg=name, **tolerance)


@pytest.mark.parametrize("b", [2, 256, 257, 600])
def test_definitions(b):
    x = random_features(b)
    found = signals(x)
    assert all(value.dtype == jnp.float32 for value in found.values())
    assert_signals(found, oracle(x), rtol=2e-5)


def test_close_to_collapse_is_more_than_rounding():
    # 1 - cosine is 1e-6 here, ten units of float32's last place: no digit would be right.
    x = random_features(200, spread=1e-3)
    wanted = oracle(x)
    assert wanted["feature_std"] < 1e-3
    assert_signals(signals(x), wanted, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_collapsed(value):
    row = value * np.linspace(0.3, 1, 12, dtype=np.float32)
    found = signals(jnp.broadcast_to(row, (200, 2, 12)))
    assert_signals(found, dict.fromkeys(found, 0.0), atol=1e-5)
    assert found["effective_rank"] == 0


def test_two_opposite_clusters_have_rank_one():
    axis = np.array([1, 0, 0, 0], np.float32)
    x = np.stack([axis, axis, -axis, -3 * axis])
    found = signals(x[:, None])
    wanted = {
        "feature_std": 2 * 1 / 4,  # one of four dimensions deviates, by 1; times sqrt(4)
        "effective_rank": 1,
        # Of 12 ordered pairs 4 are at distance 0, 8 at distance 2.
        "feature_uniformity": math.log((4 + 8 * math.exp(-8)) / 12),
    }
    assert_signals(found, wanted, rtol=1e-6)


def test_evenly_spread_directions():
    axes = np.concatenate([np.eye(8), -np.eye(8)]).astype(np.float32)
    found = signals(np.stack([axes, -axes], 1))
    # Of each row's 15 others 14 are at distance sqrt(2) and one at 2.
    uniformity = math.log((14 * math.exp(-4) + math.exp(-8)) / 15)
    wanted = {"feature_std": 1, "effective_rank": 8, "feature_uniformity": uniformity}
    assert_signals(found, wanted | {"feature_alignment": 4}, rtol=1e-6)


def test_one_example_tells_nothing():
    assert collapse.collapse_signals(jnp.ones((1, 2, 4))) == {}


def test_without_gradient():
    x = random_features(8)
    jacobian = jax.jit(jax.jacrev(collapse.collapse_signals))(x)
    assert jacobian.keys() == oracle(x).keys()
    for grad in jacobian.values():
        np.testing.assert_array_equal(grad, 0)


def test_bfloat16_is_measured_in_float32():
    x = jnp.asarray(random_features(64), jnp.bfloat16)
    assert_signals(signals(x), oracle(x), rtol=2e-5)


@pytest.mark.parametrize("b", [64, 2048])
def test_only_the_sample_travels(b):
    f, mesh = 24, parallel.make_mesh()
    x = random_features(b, f=f)
    with jax.set_mesh(mesh):
        batch = parallel.to_global({"x": x}, mesh)["x"]
        program = jax.jit(collapse.collapse_signals).lower(batch).compile()
        assert_signals(program(batch), oracle(x), rtol=2e-5)
    moved = 0
    for line in program.as_text().splitlines():
        found = re.search(r"= (.*?) (all-\w+|reduce-scatter|collective-\w+)(-start)?\(", line)
        for shape in re.findall(r"\[([\d,]*)\]", found.group(1) if found else ""):
            elements = math.prod(int(n) for n in shape.split(",") if n)
            assert elements <= min(b, 256) * f, line
            moved += elements
    # Rows of the first view once, and sums: less than one view's sample more.
    assert min(b, 256) * f <= moved < 2 * min(b, 256) * f


COLLAPSED = {"feature_std": 0.5 * STD_FLOOR, "effective_rank": 20.0}
LINE = {"feature_std": 0.5, "effective_rank": 0.9 * RANK_FLOOR}
HEALTHY = {"feature_std": 0.4, "effective_rank": 9.0}
GUESSING = {"contrastive_accuracy": 0.004, "contrastive_chance": 1 / 255}


def spoken(history, total_steps=100, start=50):
    """{step: warning} of an alarm that hears the metrics of `history` from step `start` on."""
    alarm = Alarm(total_steps=total_steps)
    told = {step: alarm(step, metrics) for step, metrics in enumerate(history, start)}
    return {step: warning for step, warning in told.items() if warning}


def test_a_healthy_run_is_silent():
    learning = {"contrastive_accuracy": 0.05, "contrastive_chance": 1 / 255}
    assert spoken([HEALTHY, {}, learning, HEALTHY | learning] * 10) == {}


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        (COLLAPSED, r"collapse: feature_std is 0.025"),
        (LINE, r"collapse: effective_rank is 1.1"),
        (GUESSING, r"contrastive accuracy is 0.40%, 0.39% by guessing"),
    ],
)
def test_it_speaks_once_and_after_some_patience(metrics, says):
    (told,) = spoken([metrics] * 20).items()
    assert told[0] == 50 + PATIENCE - 1
    assert re.match(says, told[1])
    assert "optim.lr" in told[1]


def test_one_good_step_between_starts_the_count_anew():
    few = [COLLAPSED] * (PATIENCE - 1)
    assert spoken([*few, HEALTHY] * 5) == {}
    assert list(spoken([*few, HEALTHY, *few, COLLAPSED])) == [50 + 2 * PATIENCE - 1]


def test_the_two_signs_of_a_collapse_are_one_trouble():
    assert len(spoken([COLLAPSED, LINE] * 10)) == 1


def test_two_troubles_are_told_one_after_the_other():
    told = spoken([COLLAPSED | GUESSING] * 10)
    assert list(told) == [50 + PATIENCE - 1, 50 + PATIENCE]
    assert "collapse" in told[52]
    assert "guessing" in told[53]


def test_nothing_is_said_of_an_untrained_network():
    history = [COLLAPSED | GUESSING] * 400
    assert min(spoken(history, total_steps=300, start=1)) == 30 + PATIENCE
    first, second = spoken(history * 10, total_steps=20_000, start=1)
    assert first == SETTLED + PATIENCE  # a long run waits no longer
    assert second == 2000 + PATIENCE  # but for the contrastive accuracy, a tenth


def test_what_is_not_a_number_is_no_trouble():
    nan = dict.fromkeys(COLLAPSED | GUESSING, math.nan)
    assert spoken([nan, {"contrastive_accuracy": 0.0}] * 10) == {}


@pytest.mark.parametrize(("negatives", "accuracy"), [(1, 0.67), (2, 0.5), (65536, 3e-5)])
def test_twice_the_odds_of_guessing_are_above_chance(negatives, accuracy):
    metrics = {"contrastive_chance": 1 / (negatives + 1)}
    assert spoken([metrics | {"contrastive_accuracy": 0.99 * accuracy}] * 5)
    assert not spoken([metrics | {"contrastive_accuracy": 1.02 * accuracy}] * 5)
