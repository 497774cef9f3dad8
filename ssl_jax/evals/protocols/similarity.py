"""Protocol `similarity`: rank correlation of cosines with people's scores of pairs of words."""

from typing import Any

import numpy as np
from scipy import stats

from ssl_jax.data.source import Facts
from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.evals import word_vectors
from ssl_jax.evals.context import Context
from ssl_jax.evals.protocols import Measured, Needs
from ssl_jax.evals.word_vectors import Pair

NEEDS = Needs(labels=False, train_features=False, method=True, vectors=True)
ORDER = 14
MEASURES = ("spearman", "pairs")
FEWEST = 3  # pairs, of which a correlation means something


def absent(options: Any) -> str:
    """Returns why there is nothing to measure."""
    return "" if options.similarity_file else "eval.similarity_file names no file of pairs"


def check(options: Any, facts: Facts) -> None:
    """Raises Fault if the pairs cannot be read, or too few have known words."""
    _read(options, facts["words"])


def _read(options: Any, words: np.ndarray) -> tuple[list[Pair], np.ndarray]:
    """Returns the pairs, and the numbers of their words, int [n, 2]; -1 for an unknown word."""
    path = options.similarity_file
    word_vectors.require_file("similarity_file", path)
    pairs = word_vectors.read_pairs(path)
    vocabulary = word_vectors.Vocabulary(words)
    numbers = np.array([[vocabulary[a], vocabulary[b]] for a, b, _ in pairs])
    known = int((numbers >= 0).all(1).sum())
    if known < FEWEST:
        raise Fault(
            f"eval.similarity_file={path}: only {known} pairs have two words of the vocabulary, "
            f"and a correlation needs {FEWEST}. Leave 'similarity' out of eval.protocols, or train "
            "on more text",
            BAD_DATA,
        )
    return pairs, numbers


def run(context: Context) -> Measured:
    """Compares the pairs whose two words are known."""
    pairs, numbers = _read(context.options, context.subject.facts["words"])
    known = (numbers >= 0).all(1)
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
