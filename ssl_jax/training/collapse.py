"""Signs of collapse: measured on the features in every step, watched for on the host."""

from collections.abc import Mapping

import jax

from ssl_jax.losses.softmax import normalise
from ssl_jax.training import feature_spread

SAMPLE = 256  # examples

# On digits, an encoder trained to pull views together and nothing else goes from 0.43 to 0.015 in
# 80 steps, through 0.05 at step 22. Untrained and healthy ResNets have 0.38 to 0.58, untrained
# vision transformers 0.10 (digits, average pooling) to 0.80; a rate 400 times too high, 0.16.
STD_FLOOR = 0.05
# In that collapse the rank stays above 14: it is blind to how little is left of the deviation, but
# sees what that does not, features along one line or in two clusters. Untrained and healthy ResNets
# have 7 to 34, untrained vision transformers 2.1 to 5.8; the rate 400 times too high goes through
# 1.7 and recovers.
RANK_FLOOR = 1.2
PATIENCE = 3  # logged steps in a row: one may be a bad batch
SETTLED = 1000  # steps, at most a tenth of the run: before, an untrained encoder may look collapsed

ADVICE = "Try a lower optim.lr or a longer optim.warmup_epochs"


def signals(features: jax.Array) -> dict[str, jax.Array]:
    """How far the features are from collapse, by a sample of the batch; without gradient.

    The sample is every s-th example, s the smallest with at most 256 of them: every device gives
    its share, and nothing but the sample travels between devices.

    Args:
      features: [b, v, f], of any length: all signals are of unit-length features, in float32 at
        least (a zero row stays zero).

    Returns:
      Scalars, of the first view where nothing else is said; {} if b is 1.
      "feature_std", "effective_rank", "feature_uniformity": `spread.deviation`, `effective_rank`
        and `uniformity`, the last 0 in collapse; "feature_alignment", from two views on:
        `spread.alignment` of the first two of an example.
    """
    b, v, _ = features.shape
    if b < 2:
        return {}
    unit = normalise(jax.lax.stop_gradient(features)[:: -(-b // SAMPLE), :2])
    rows = feature_spread.rows(unit[:, 0])
    found = {
        "feature_std": feature_spread.deviation(rows),
        "effective_rank": feature_spread.effective_rank(rows),
        "feature_uniformity": feature_spread.uniformity(rows),
    }
    if v > 1:
        found["feature_alignment"] = feature_spread.alignment(unit[:, 0], unit[:, 1])
    return found


class Alarm:
    """Warns of a run that learns nothing, once for each kind of trouble.

    "collapse": feature_std or effective_rank is below its floor. "chance": after a tenth of the
    run, the odds of contrastive_accuracy are less than twice those of contrastive_chance. A metric
    that is not there or not finite is no trouble.
    """

    def __init__(self, *, total_steps: int) -> None:
        self._tenth = total_steps // 10
        self._lasted = {"collapse": 0, "chance": 0}
        self._told: set[str] = set()

    def __call__(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """A warning when a trouble has lasted for `PATIENCE` calls: what is measured, what it
        means, what to try. To be called for every logged step in turn.
        """
        troubles = {
            "collapse": _collapse(metrics) if step > min(self._tenth, SETTLED) else None,
            "chance": _chance(metrics) if step > self._tenth else None,
        }
        for kind, trouble in troubles.items():
            self._lasted[kind] = self._lasted[kind] + 1 if trouble else 0
        for kind, trouble in troubles.items():
            if self._lasted[kind] >= PATIENCE and kind not in self._told:
                self._told.add(kind)
                return trouble
        return None


def _collapse(metrics: Mapping[str, float]) -> str | None:
    if metrics.get("feature_std", 1) < STD_FLOOR:
        found = f"feature_std is {metrics['feature_std']:.2g}, images have nearly equal features"
    elif metrics.get("effective_rank", RANK_FLOOR) < RANK_FLOOR:
        found = f"effective_rank is {metrics['effective_rank']:.2g}, features lie along one line"
    else:
        return None
    return (
        f"collapse: {found}. {ADVICE}; or the method lacks what keeps images apart: negatives, "
        "a stop-gradient, a target network, a variance or covariance term"
    )


def _chance(metrics: Mapping[str, float]) -> str | None:
    accuracy = metrics.get("contrastive_accuracy", 1)
    chance = metrics.get("contrastive_chance", 0)
    # By odds, so that it also holds for a few candidates, where twice the chance may be 1.
    if not accuracy < 2 * chance / (1 + chance):
        return None
    return (
        f"contrastive accuracy is {accuracy:.2%}, {100 * chance:.2g}% by guessing: a view does not "
        f"find its own image among the others. {ADVICE}, milder crops (augment.crop_area) or "
        "another method.temperature"
    )
