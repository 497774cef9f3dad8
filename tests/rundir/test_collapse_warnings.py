"""Warnings about collapse: their timing, and the answer in words."""

import math
import re

import pytest

from ssl_jax.rundir.collapse import (
    PATIENCE,
    RANK_FLOOR,
    STD_FLOOR,
    WARMUP,
    CollapseDetector,
    describe,
)

COLLAPSED = {"feature_std": 0.5 * STD_FLOOR, "effective_rank": 20.0}
LINE = {"feature_std": 0.5, "effective_rank": 0.9 * RANK_FLOOR}
HEALTHY = {"feature_std": 0.4, "effective_rank": 9.0}
GUESSING = {"contrastive_accuracy": 0.004, "contrastive_chance": 1 / 255}


def warnings_by_step(history, total_steps=100, start=50):
    """Returns {step: warning} for the metrics of `history`, which begin at step `start`."""
    detector = CollapseDetector(total_steps=total_steps)
    answers = {step: detector.check(step, metrics) for step, metrics in enumerate(history, start)}
    return {step: warning for step, warning in answers.items() if warning}


def test_healthy_run_gets_no_warning():
    learning = {"contrastive_accuracy": 0.05, "contrastive_chance": 1 / 255}
    assert warnings_by_step([HEALTHY, {}, learning, HEALTHY | learning] * 10) == {}


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        (COLLAPSED, r"collapse: feature_std is 0.025"),
        (LINE, r"collapse: effective_rank is 1.1"),
        (GUESSING, r"contrastive accuracy is 0.40%, 0.39% by guessing"),
    ],
)
def test_each_problem_is_reported_once_after_patience(metrics, text):
    ((step, warning),) = warnings_by_step([metrics] * 20).items()
    assert step == 50 + PATIENCE - 1
    assert re.match(text, warning)
    assert "optim.lr" in warning


def test_one_good_step_restarts_the_count():
    few = [COLLAPSED] * (PATIENCE - 1)
    assert warnings_by_step([*few, HEALTHY] * 5) == {}
    assert list(warnings_by_step([*few, HEALTHY, *few, COLLAPSED])) == [50 + 2 * PATIENCE - 1]


def test_both_signs_of_collapse_are_one_problem():
    assert len(warnings_by_step([COLLAPSED, LINE] * 10)) == 1


def test_two_problems_are_reported_in_consecutive_steps():
    warnings = warnings_by_step([COLLAPSED | GUESSING] * 10)
    assert list(warnings) == [50 + PATIENCE - 1, 50 + PATIENCE]
    assert "collapse" in warnings[52]
    assert "guessing" in warnings[53]


def test_untrained_network_gets_no_warning():
    history = [COLLAPSED | GUESSING] * 400
    assert min(warnings_by_step(history, total_steps=300, start=1)) == 30 + PATIENCE
    first, second = warnings_by_step(history * 10, total_steps=20_000, start=1)
    assert first == WARMUP + PATIENCE  # the limit in a long run
    assert second == 2000 + PATIENCE  # contrastive accuracy: always 10 % of the run


def test_non_finite_metrics_are_ignored():
    nan = dict.fromkeys(COLLAPSED | GUESSING, math.nan)
    assert warnings_by_step([nan, {"contrastive_accuracy": 0.0}] * 10) == {}


@pytest.mark.parametrize(("negatives", "accuracy"), [(1, 0.67), (2, 0.5), (65536, 3e-5)])
def test_accuracy_above_twice_the_odds_of_guessing_gets_no_warning(negatives, accuracy):
    metrics = {"contrastive_chance": 1 / (negatives + 1)}
    assert warnings_by_step([metrics | {"contrastive_accuracy": 0.99 * accuracy}] * 5)
    assert not warnings_by_step([metrics | {"contrastive_accuracy": 1.02 * accuracy}] * 5)


def test_the_answer_names_the_last_logged_values():
    rows = [{"step": 10 * i, **HEALTHY} for i in range(1, 4)]
    assert describe(rows) == (
        "No: at step 30, the last one logged, the features' standard deviation is 0.4 "
        "(a collapse is below 0.05) and their effective rank is 9 (below 1.2)."
    )
    assert describe([*rows, {"step": 1040, **COLLAPSED}]) == (
        "Yes: at step 1,040, the last one logged, feature_std is 0.025, examples have nearly equal "
        "features."
    )
    recovered = describe([{"step": 5, **LINE}, *rows])
    assert recovered.startswith("No:")
    assert recovered.endswith("They looked collapsed before, for the last time at step 5.")
