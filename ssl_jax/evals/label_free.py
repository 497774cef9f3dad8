"""Measures of features without labels: RankMe, alignment, uniformity and deviation."""

from typing import Any

import jax
import numpy as np

from ssl_jax.evals import rows
from ssl_jax.losses.softmax import normalise
from ssl_jax.training import feature_spread

RANK_ROWS = 25_600  # number of examples in RankMe's paper
PAIR_ROWS = 4096  # uniformity compares every pair of examples
EPSILON = 1e-7  # in RankMe's equation 1


def rankme(features: np.ndarray) -> float:
    """Returns RankMe: exp of the entropy of the singular values divided by their sum.

    RankMe is between 1 and min(n, f). Source: Garrido et al. (arXiv 2210.02885), equation 1, with
    its 1e-7.

    Args:
      features: float [n, f], neither centred nor normalised. n should be several times f.
    """
    values = np.linalg.svd(np.asarray(features, np.float32), compute_uv=False).astype(np.float64)
    share = values / max(values.sum(), np.finfo(np.float64).tiny) + EPSILON
    return float(np.exp(-np.sum(share * np.log(share))))


def measure(features: np.ndarray, views: np.ndarray) -> dict[str, Any]:
    """Measures features.

    Args:
      features: float [n, f] of whole examples. RankMe uses the first 25,600 rows.
      views: float [m, 2, f] of two random views per example, of the same or other examples. The
        other measures use the first 4,096 rows at unit length; uniformity and deviation use only
        the first view.

    Returns:
      {"rankme", "alignment", "uniformity", "feature_std"} and the sizes "n_rank", "n_pairs" and
      "dimensions".
    """
    features, views = features[:RANK_ROWS], views[:PAIR_ROWS]
    numbers = {name: float(rows.gather(x)) for name, x in _measure_views(views).items()}
    sizes = {"n_rank": len(features), "n_pairs": len(views), "dimensions": features.shape[1]}
    return {"rankme": rankme(features)} | numbers | sizes


@jax.jit
def _measure_views(views: jax.Array) -> dict[str, jax.Array]:
    unit = normalise(views)
    first = feature_spread.rows(unit[:, 0])
    return {
        "alignment": feature_spread.alignment(unit[:, 0], unit[:, 1]),
        "uniformity": feature_spread.uniformity(first),
        "feature_std": feature_spread.deviation(first),
    }
