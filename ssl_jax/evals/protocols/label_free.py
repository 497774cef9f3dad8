"""Protocol `label_free`: RankMe, alignment, uniformity and deviation of features."""

from typing import Any

from ssl_jax.evals import extract, label_free
from ssl_jax.evals.context import Context
from ssl_jax.evals.protocols import Measured, Needs

NEEDS = Needs(labels=False, train_features=False, input="pair")
ORDER = 10
MEASURES = ("rankme", "alignment", "uniformity", "feature_std")


def run(context: Context) -> Measured:
    """Measures the test examples, or training examples without a test split."""
    columns = context.test_columns
    pairs = extract.view_pairs(
        context.config,
        context.input,
        context.subject,
        context.mesh,
        context.test or context.source,
        limit=label_free.PAIR_ROWS,
    )
    results = {
        name: label_free.measure(columns[column], pairs[column])
        for name, column in context.columns.items()
    }
    return Measured(results)


def describe(context: Context, results: dict[str, Any]) -> dict[str, Any]:
    """Returns the protocol in words and values."""
    del results
    noun, data = context.noun, context.config.data
    split = context.test.split or data.eval_split if context.test else data.split
    return {
        "labels": "none",
        "rankme": "exponential of the entropy of the singular values over their sum (arXiv "
        f"2210.02885, equation 1), of at most {label_free.RANK_ROWS:,} {noun}s without "
        "augmentation",
        "alignment": f"mean squared distance of two random views of {_article(noun)} at unit "
        f"length (arXiv 2005.10242, section 4.1), at most {label_free.PAIR_ROWS:,} {noun}s",
        "uniformity": "log of the mean of exp(-2 distance^2) over pairs of the first views (there)",
        "feature_std": "standard deviation of the first views at unit length, mean over "
        "dimensions, times the square root of their number",
        "views": "two of the run's random views (augment)",
        f"{noun}s": f"{split} of {(context.test or context.source).name}",
    }


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def heading(protocol: dict[str, Any]) -> str:
    """Returns the title of its table."""
    del protocol
    return "without labels"
