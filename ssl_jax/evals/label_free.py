"""What can be said of features without any label: RankMe, alignment, uniformity, deviation."""

from typing import Any

import jax
import numpy as np

from ssl_jax.evals import rows
from ssl_jax.losses.softmax import normalise
from ssl_jax.training import feature_spread

RANK_ROWS = 25_600  # RankMe's own number of examples
PAIR_ROWS = 4096  # uniformity compares each with each
EPSILON = 1e-7


def rankme(features: np.ndarray) -> float:
    """RankMe: the exponential of the entropy of the singular values, divided by their sum.

    Between 1 and min(n, f), of features as they are, neither centred nor of unit length. Source:
    Garrido et al. (arXiv 2210.02885), equation 1, the 1e-7 included.

    Args:
      features: float [n, f], n of several times f to tell something.
    """
    values = np.linalg.svd(np.asarray(features, np.float32), compute_uv=False).astype(np.float64)
    share = values / max(values.sum(), np.finfo(np.float64).tiny) + EPSILON
    return float(np.exp(-np.sum(share * np.log(share))))


def measure(features: np.ndarray, views: np.ndarray) -> dict[str, Any]:
    """{"rankme", "alignment", "uniformity", "feature_std"} with "n_rank" and "n_pairs".

    Args:
      features: [n, f] of whole images, for RankMe: the first 25,600.
      views: [m, 2, f], two random views of other or the same images, for the other three: the
        first 4,096; uniformity and deviation are of the first view. At unit length.
    """
    features, views = features[:RANK_ROWS], views[:PAIR_ROWS]
    numbers = {name: float(rows.gather(x)) for name, x in _of_views(views).items()}
    sizes = {"n_rank": len(features), "n_pairs": len(views), "dimensions": features.shape[1]}
    return {"rankme": rankme(features)} | numbers | sizes


@jax.jit
def _of_views(views: jax.Array) -> dict[str, jax.Array]:
    unit = normalise(views)
    first = feature_spread.rows(unit[:, 0])
    return {
        "alignment": feature_spread.alignment(unit[:, 0], unit[:, 1]),
        "uniformity": feature_spread.uniformity(first),
        "feature_std": feature_spread.deviation(first),
    }
