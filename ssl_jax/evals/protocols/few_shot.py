"""Protocol `few_shot`: ridge regression on 1 to 100 labels of every class."""

from typing import Any

from ssl_jax.evals import few_shot, wording
from ssl_jax.evals.context import Context
from ssl_jax.evals.protocols import Measured
from ssl_jax.evals.results import sizes

ORDER = 50
AXIS = "shots"


def run(context: Context) -> Measured:
    """Classifies the test examples by a few labels of every class, drawn several times."""
    results = {
        name: sizes(arrays)
        | few_shot.evaluate(
            *arrays,
            shots=few_shot.SHOTS,
            draws=context.options.few_shot_draws,
            seed=context.seed,
            sharding=context.sharding,
        )
        for name, arrays in context.sets.items()
    }
    return Measured(results)


def describe(context: Context, results: dict[str, Any]) -> dict[str, Any]:
    """Returns the protocol in words and values."""
    del results
    return {
        "classifier": "ridge regression on one-hot labels, in closed form, intercept free (the "
        "few-shot evaluation of big_vision, but for the choices named here)",
        "l2": "the number of features, fixed",
        "labels": "of every class as many as shots, drawn at random; fewer shots among the more",
        "shots": list(few_shot.SHOTS),
        "draws": context.options.few_shot_draws,
        "features": wording.standardised(context.noun),
        "score": wording.score(context.noun) + ", mean and standard deviation over draws",
        "interval": wording.INTERVAL,
        "seed": context.seed,
    } | context.describe_examples()


def heading(protocol: dict[str, Any]) -> str:
    """Returns the title of the protocol's table."""
    del protocol
    return "shots"
