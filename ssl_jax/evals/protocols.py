"""What an evaluation did, in words and numbers that are stored beside its result."""

from collections.abc import Sequence
from typing import Any

from ssl_jax.evals import few_shot, label_free, linear, logistic, sgd

SCORE = "top-1 accuracy on the test images"
STANDARDISED = (
    "without augmentation; standardised by the mean and standard deviation over the train images"
)
INTERVAL = "95 % of Student's t over draws"


def knn(k: int, temperature: float) -> dict[str, Any]:
    """Of `knn.predict`."""
    return {
        "classifier": "k nearest neighbours in cosine similarity, votes weighted by "
        "exp(similarity / temperature) (Wu et al. 2018, section 3.4)",
        "k": k,
        "temperature": temperature,
        "bank": "the train images, without augmentation",
        "score": SCORE,
    }


def linear_sweep(count: int, repeats: int, l2: Sequence[float], seed: int) -> dict[str, Any]:
    """Of `linear.sweep`."""
    chosen = (
        "best accuracy, then least loss, on held-out train labels: "
        f"{linear.FOLDS} stratified folds up to {linear.ONE_FOLD_FROM:,} labels, one such fold "
        f"above, fitted to a gradient norm of {linear.PATH_TOLERANCE:g} in at most "
        f"{linear.PATH_ITERATIONS} iterations; then refitted on all of them"
    )
    several = count and repeats > 1
    return {
        "classifier": "multinomial logistic regression on frozen features, by L-BFGS to a "
        f"gradient norm of {logistic.TOLERANCE:g}, at most {logistic.MAX_ITERATIONS} iterations",
        "labels": f"{count} per class, drawn at random" if count else "of all the train images",
        "labels_per_class": count,
        "draws": repeats if count else 1,
        "features": STANDARDISED,
        "l2": sorted(l2, reverse=True),
        "l2 scale": "relative to the mean loss, on the weights only",
        "l2 choice": chosen if len(l2) > 1 else "given",
        "score": SCORE + (", mean and standard deviation over draws" if several else ""),
        "seed": seed,
    } | ({"interval": INTERVAL} if several else {})


def linear_sgd(
    *, epochs: float, batch_size: int, steps: int, rates: Sequence[float], views: str, seed: int
) -> dict[str, Any]:
    """Of `sgd.evaluate`."""
    return {
        "classifier": "linear, by SGD on the frozen encoder's features of random crops (SimCLR, "
        "arXiv 2002.05709, appendix B.6)",
        "optimizer": f"Nesterov momentum {sgd.MOMENTUM:g}, cosine to 0, no warm-up, no decay",
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch_size,
        "lr": list(rates),
        "lr scale": f"times batch / {sgd.BATCH}",
        "lr choice": f"best accuracy on whole images of a {sgd.HELD_OUT}th of each class of train, "
        "of classifiers that have not seen it; those tested have seen all train images",
        "views": views,
        "features": "not standardised; the encoder's normalisation as in inference",
        "score": SCORE,
        "seed": seed,
    }


def ridge(repeats: int, seed: int) -> dict[str, Any]:
    """Of `few_shot.evaluate`."""
    return {
        "classifier": "ridge regression on one-hot labels, in closed form, intercept free (the "
        "few-shot evaluation of big_vision, but for the choices named here)",
        "l2": "the number of features, fixed",
        "labels": "of every class as many as shots, drawn at random; fewer shots among the more",
        "shots": list(few_shot.SHOTS),
        "draws": repeats,
        "features": STANDARDISED,
        "score": SCORE + ", mean and standard deviation over draws",
        "interval": INTERVAL,
        "seed": seed,
    }


def layers(l2: Sequence[float], seed: int) -> dict[str, Any]:
    """Of a linear evaluation of every layer."""
    pooled = (
        "of every block of the encoder, from one forward: residual blocks by their mean over "
        "space, transformer blocks by the class token or the mean that the encoder takes"
    )
    return linear_sweep(0, 1, l2, seed) | {"layers": pooled}


def without_labels(views: str) -> dict[str, Any]:
    """Of `label_free.measure`."""
    return {
        "labels": "none",
        "rankme": "exponential of the entropy of the singular values over their sum (arXiv "
        f"2210.02885, equation 1), of at most {label_free.RANK_ROWS:,} images without augmentation",
        "alignment": "mean squared distance of two random views of an image at unit length "
        f"(arXiv 2005.10242, section 4.1), at most {label_free.PAIR_ROWS:,} images",
        "uniformity": "log of the mean of exp(-2 distance^2) over pairs of the first views (there)",
        "feature_std": "standard deviation of the first views at unit length, mean over "
        "dimensions, times the square root of their number",
        "views": views,
    }
