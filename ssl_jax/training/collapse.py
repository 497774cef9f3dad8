"""Collapse signals: computed from the features in every step.

`rundir.collapse` judges the logged values.
"""

import jax

from ssl_jax.losses.softmax import normalise
from ssl_jax.training import feature_spread

SAMPLE = 256  # largest number of examples from which the signals are computed


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
