"""Judges logged metrics: have the features collapsed, does the method learn nothing?"""

import math
from collections.abc import Mapping, Sequence

# feature_std below this value is reported. Measured on digits: an encoder that is only trained to
# pull views together goes from 0.43 to 0.015 in 80 steps, and passes 0.05 at step 22. Untrained and
# healthy ResNets have 0.38 to 0.58, and untrained vision transformers 0.10 (digits, average
# pooling) to 0.80. A learning rate 400 times too high gives 0.16.
STD_FLOOR = 0.05
# effective_rank below this value is reported. In the collapse above it stays above 14, because it
# does not depend on the size of the deviation. But it detects features along one line or in two
# clusters, which feature_std does not. Untrained and healthy ResNets have 7 to 34, and untrained
# vision transformers 2.1 to 5.8. The learning rate 400 times too high passes 1.7 and recovers.
RANK_FLOOR = 1.2
PATIENCE = 3  # consecutive logged steps, because a single step may have an unusual batch
# Steps before the first check, at most 10 % of the run: an untrained encoder may look collapsed.
WARMUP = 1000

ADVICE = "Try a lower optim.lr or a longer optim.warmup_epochs"


class CollapseDetector:
    """Warns if a run learns nothing, once per kind of problem.

    "collapse": feature_std or effective_rank is below its floor. "chance": after 10 % of the run,
    the odds of contrastive_accuracy are less than twice the odds of contrastive_chance. Missing and
    non-finite metrics are ignored.
    """

    def __init__(self, *, total_steps: int) -> None:
        self._tenth = total_steps // 10
        self._steps_in_a_row = {"collapse": 0, "chance": 0}
        self._reported: set[str] = set()

    def check(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """Returns a warning if a problem has lasted for `PATIENCE` calls; None otherwise.

        Call it once for every logged step, in order. The warning says what was measured, what it
        means and what to try.
        """
        problems = {
            "collapse": _collapse(metrics) if step > min(self._tenth, WARMUP) else None,
            "chance": _chance(metrics) if step > self._tenth else None,
        }
        for kind, problem in problems.items():
            self._steps_in_a_row[kind] = self._steps_in_a_row[kind] + 1 if problem else 0
        for kind, problem in problems.items():
            if self._steps_in_a_row[kind] >= PATIENCE and kind not in self._reported:
                self._reported.add(kind)
                return problem
        return None


def sign_of_collapse(metrics: Mapping[str, float]) -> str:
    """Returns the measurement that shows collapsed features, and its meaning; "" if none does."""
    if metrics.get("feature_std", 1) < STD_FLOOR:
        return f"feature_std is {metrics['feature_std']:.2g}, examples have nearly equal features"
    if metrics.get("effective_rank", RANK_FLOOR) < RANK_FLOOR:
        return f"effective_rank is {metrics['effective_rank']:.2g}, features lie along one line"
    return ""


def describe(rows: Sequence[Mapping[str, float]]) -> str:
    """Answers in words whether the features of a run collapse.

    Args:
      rows: "step", "feature_std" and "effective_rank" (infinite if unknown) of logged steps, in
        order; at least one.
    """
    last = rows[-1]
    signs = [(row["step"], sign) for row in rows if (sign := sign_of_collapse(row))]
    if sign := sign_of_collapse(last):
        return f"Yes: at step {last['step']:,.0f}, the last one logged, {sign}."
    answer = (
        f"No: at step {last['step']:,.0f}, the last one logged, the features' standard deviation "
        f"is {last['feature_std']:.2g} (a collapse is below {STD_FLOOR})"
    )
    if math.isfinite(last["effective_rank"]):
        answer += f" and their effective rank is {last['effective_rank']:.2g} (below {RANK_FLOOR})"
    if signs:
        answer += f". They looked collapsed before, for the last time at step {signs[-1][0]:,.0f}"
    return answer + "."


def _collapse(metrics: Mapping[str, float]) -> str | None:
    """Returns a warning if the features have collapsed."""
    if not (sign := sign_of_collapse(metrics)):
        return None
    return (
        f"collapse: {sign}. {ADVICE}. Or the method lacks a term that keeps examples apart: "
        "negatives, a stop-gradient, a target network, a variance or covariance term"
    )


def _chance(metrics: Mapping[str, float]) -> str | None:
    """Returns a warning if the contrastive accuracy is close to that of guessing."""
    accuracy = metrics.get("contrastive_accuracy", 1)
    chance = metrics.get("contrastive_chance", 0)
    # Odds also work for few candidates, where twice the chance may be 1.
    if not accuracy < 2 * chance / (1 + chance):
        return None
    return (
        f"contrastive accuracy is {accuracy:.2%}, {100 * chance:.2g}% by guessing: the method does "
        f"not find what belongs together, such as two views of an example. {ADVICE}, or milder "
        "random changes (augment)"
    )
