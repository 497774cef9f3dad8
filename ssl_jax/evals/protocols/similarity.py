"""Protocol `similarity`: rank correlation of cosines with people's scores of pairs of words."""

from typing import Any

import numpy as np
from scipy import stats

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.evals import word_vectors
from ssl_jax.evals.context import Context
from ssl_jax.evals.protocols import CountLabels, Measured, Needs

NEEDS = Needs(labels=False, train_features=False, method=True, vectors=True)
ORDER = 14
MEASURES = ("spearman", "pairs")
FEWEST = 3  # pairs, of which a correlation means something


def absent(options: Any) -> str:
    """Returns why there is nothing to measure."""
    return "" if options.similarity_file else "eval.similarity_file names no file of pairs"


def problem(options: Any, count: CountLabels) -> str:
    """Returns why the pairs cannot be read."""
    del count
    return word_vectors.missing_file("similarity_file", options.similarity_file)


def run(context: Context) -> Measured:
    """Compares the pairs whose two words are known."""
    pairs = word_vectors.read_pairs(context.options.similarity_file)
    vocabulary = word_vectors.Vocabulary(context.subject.facts["words"])
    numbers = np.array([[vocabulary[a], vocabulary[b]] for a, b, _ in pairs])
    known = (numbers >= 0).all(1)
    if known.sum() < FEWEST:
        raise Fault(
            f"eval.similarity_file={context.options.similarity_file}: only {known.sum()} pairs "
            "have two words of the vocabulary. Leave 'similarity' out of eval.protocols, or train "
            "on more text",
            BAD_DATA,
        )
    scores = np.array([score for _, _, score in pairs])[known]
    results = {}
    for name, rows in word_vectors.vectors(context).items():
        a, b = (rows[numbers[known, i]] for i in range(2))
        correlation = float(stats.spearmanr((a * b).sum(1), scores).statistic)
        results[name] = {
            "spearman": correlation if np.isfinite(correlation) else 0.0,
            "pairs": int(known.sum()),
            "unknown": int((~known).sum()),
        }
    return Measured(results)


def describe(context: Context, results: dict[str, Any]) -> dict[str, Any]:
    """Returns the protocol in words and values."""
    del results
    return {
        "pairs": context.options.similarity_file.rpartition("/")[2],
        "score": "Spearman's rank correlation of the cosines of the vectors with the scores, over "
        "the pairs whose two words are known; 0 if all cosines are equal",
    }


def heading(protocol: dict[str, Any]) -> str:
    """Returns the title of its table."""
    return f"similarity, {protocol['pairs']}"
