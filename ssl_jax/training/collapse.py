"""Collapse signals: computed from the features in every step, and checked on the host."""

from collections.abc import Mapping

import jax

from ssl_jax.losses.softmax import normalise
from ssl_jax.training import feature_spread

SAMPLE = 256  # largest number of examples from which the signals are computed

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


def collapse_signals(features: jax.Array) -> dict[str, jax.Array]:
    """Measures how far the features are from collapse, on a sample of the batch, without gradient.

    The sample is every s-th example, with the smallest s that gives at most 256 examples. Every
    device contributes equally, and only the sample moves between devices.

    Args:
      features: [b, v, f]. They are scaled to unit length first, in float32 or wider; a zero row
        stays zero.

    Returns:
      Scalars by name; {} if b is 1. The first view gives "feature_std", "effective_rank" and
      "feature_uniformity" (functions of `feature_spread`; 0 in collapse). With two or more views,
      "feature_alignment" is `feature_spread.alignment` of the first two views.
    """
    b, v, _ = features.shape
    if b < 2:
        return {}
    unit = normalise(jax.lax.stop_gradient(features)[:: -(-b // SAMPLE), :2])
    rows = feature_spread.rows(unit[:, 0])
    signals = {
        "feature_std": feature_spread.deviation(rows),
        "effective_rank": feature_spread.effective_rank(rows),
        "feature_uniformity": feature_spread.uniformity(rows),
    }
    if v > 1:
        signals["feature_alignment"] = feature_spread.alignment(unit[:, 0], unit[:, 1])
    return signals


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


def _collapse(metrics: Mapping[str, float]) -> str | None:
    """Returns a warning if the features have collapsed."""
    if metrics.get("feature_std", 1) < STD_FLOOR:
        sign = f"feature_std is {metrics['feature_std']:.2g}, examples have nearly equal features"
    elif metrics.get("effective_rank", RANK_FLOOR) < RANK_FLOOR:
        sign = f"effective_rank is {metrics['effective_rank']:.2g}, features lie along one line"
    else:
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
        f"contrastive accuracy is {accuracy:.2%}, {100 * chance:.2g}% by guessing: a view does not "
        f"find the other view of its example. {ADVICE}, milder crops (augment.crop_area) or "
        "another method.temperature"
    )
