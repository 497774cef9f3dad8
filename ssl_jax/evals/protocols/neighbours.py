"""Protocol `neighbours`: the nearest words of some words."""

from typing import Any

import numpy as np

from ssl_jax.data.source import Facts
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.evals import word_vectors
from ssl_jax.evals.context import Context
from ssl_jax.evals.protocols import Measured, Needs

NEEDS = Needs(labels=False, train_features=False, method=True, vectors=True)
ORDER = 16
MEASURES = ("nearest_cosine",)
COUNT = 10  # neighbours of each word
FREQUENT = 20  # words without eval.neighbours_of


def check(options: Any, facts: Facts) -> None:
    """Raises Fault if `eval.neighbours_of` names unknown words."""
    _chosen(options.neighbours_of, facts["words"])


def run(context: Context) -> Measured:
    """Lists the neighbours of `eval.neighbours_of`, or of frequent words."""
    words = context.subject.facts["words"]
    chosen = _chosen(context.options.neighbours_of, words)
    results = {}
    for name, rows in word_vectors.vectors(context).items():
        found, cosines = word_vectors.nearest(rows, chosen, COUNT)
        results[name] = {
            "nearest_cosine": float(cosines[:, 0].mean()),
            "neighbours": {
                str(words[word]): [
                    [str(words[near]), round(float(cosine), 4)]
                    for near, cosine in zip(found[i], cosines[i], strict=True)
                ]
                for i, word in enumerate(chosen)
            },
        }
    return Measured(results)


def _chosen(wanted: tuple[str, ...], words: np.ndarray) -> np.ndarray:
    """Returns the numbers of the words; by default, some of the hundred most frequent ones."""
    if not wanted:
        return np.unique(np.linspace(0, min(len(words), 100) - 1, FREQUENT).astype(int))
    vocabulary = word_vectors.Vocabulary(words)
    numbers = {word: vocabulary[word] for word in wanted}
    if unknown := [word for word, number in numbers.items() if number < 0]:
        message = f"eval.neighbours_of: not in the vocabulary: {', '.join(unknown)}. "
        message += "Leave them out, or train on more text"
        raise Fault(message, BAD_CONFIG)
    return np.array(list(numbers.values()))


def describe(context: Context, results: dict[str, Any]) -> dict[str, Any]:
    """Returns the protocol in words and values."""
    del results
    given = context.options.neighbours_of
    return {
        "words": list(given) or "evenly spaced among the hundred most frequent",
        "neighbours": f"the {COUNT} words of the vocabulary with the largest cosine",
        "nearest_cosine": "mean cosine of the nearest word; near 1 if the vectors collapse",
    }


def heading(protocol: dict[str, Any]) -> str:
    """Returns the title of its table."""
    del protocol
    return "neighbours"
