"""Protocol `knn`: weighted k-nearest-neighbour classification."""

from typing import Any

import numpy as np

from ssl_jax.evals import draws, knn, wording
from ssl_jax.evals.context import Context
from ssl_jax.evals.protocols import Measured, Needs
from ssl_jax.evals.results import sizes

NEEDS = Needs(method=True)
ORDER = 40


def run(context: Context) -> Measured:
    """Classifies the test examples by the vote of their neighbours among the training examples."""
    options, results, predictions = context.options, {}, {}
    for name, arrays in context.sets.items():
        train_x, train_y, test_x, test_y = arrays
        predicted = knn.predict(
            train_x,
            train_y,
            test_x,
            k=options.knn_k,
            temperature=options.knn_temperature,
            sharding=context.sharding,
        )
        numbers = draws.summary([float(np.mean(predicted == test_y))])
        results[name] = sizes(arrays) | numbers | {"k": min(options.knn_k, len(train_x))}
        predictions[name] = predicted
    return Measured(results, predictions)


def describe(context: Context, results: dict[str, Any]) -> dict[str, Any]:
    """Returns the protocol in words and values."""
    del results
    return {
        "classifier": "k nearest neighbours in cosine similarity, votes weighted by "
        "exp(similarity / temperature) (Wu et al. 2018, section 3.4)",
        "k": context.options.knn_k,
        "temperature": context.options.knn_temperature,
        "bank": f"the train {context.noun}s, without augmentation",
        "score": wording.score(context.noun),
    } | context.describe_examples()


def heading(protocol: dict[str, Any]) -> str:
    """Returns the title of its column."""
    return f"{protocol['k']}-NN"
