"""kNN accuracy during training, for early stopping. Only training examples are read."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ssl_jax import components, parallel
from ssl_jax.data.labels import sample_indices
from ssl_jax.evals import extract, knn
from ssl_jax.training.parts import Parts
from ssl_jax.training.state import TrainState

SAMPLE = 5000  # largest number of training examples that are read
QUERY_EVERY = 5  # every fifth of them is a query, the others are the bank
NEIGHBOURS = 20
# The decision to stop must not depend on fields that may change on resume.
FIXED = {"crop": 1.0, "batch_size": 256}  # fields of `config.eval`


def scorer(config: ConfigDict, parts: Parts) -> Callable[[TrainState], float]:
    """Returns state -> accuracy of `knn.predict` on a fixed sample of the training examples.

    The sample is drawn with the run's seed and sorted. A part of it is classified by the other
    part, so no example is its own neighbour. Images are not augmented.

    Args:
      config: config of the run.
      parts: parts of the run; all its training examples have labels.
    """
    config = config.copy_and_resolve_references()
    config.eval.update(FIXED)
    example_input, source = components.make_input(config), parts.source
    chosen = sample_indices(source.size, SAMPLE, config.train.seed)
    chosen = np.arange(source.size) if chosen is None else chosen
    is_query = np.arange(len(chosen)) % QUERY_EVERY == 0

    @partial(jax.jit, out_shardings=parallel.replicated(parts.mesh))
    def columns(weights: tuple[Any, Any], batch: dict[str, Any]) -> Mapping[str, jax.Array]:
        x = example_input.to_model(batch.pop("input"))
        return batch | {"features": parts.method.features(*weights, x)}

    def score(state: TrainState) -> float:
        with_weights = partial(columns, (state.params, state.extra))
        bank, queries = (
            extract.map_source(config, parts.mesh, with_weights, source, chosen[rows])
            for rows in (~is_query, is_query)
        )
        return knn.accuracy(
            bank["features"],
            bank["label"],
            queries["features"],
            queries["label"],
            k=NEIGHBOURS,
            sharding=parallel.rows(parts.mesh),
        )

    return score
