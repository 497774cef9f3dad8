"""kNN and the L-BFGS linear sweep against scikit-learn, on the same features in one run.

    python -m benchmarks.evals --rows=20000
    python -m benchmarks.evals --resnet18 --rows=60000

The first command generates features with a class structure. It prints wall-clock seconds, CPU
seconds and accuracies of ssl_jax and of scikit-learn. Both select among the same L2 strengths on
the same held-out rows; scikit-learn fits each one to its own default tolerance. The second command
times an evaluation of the size of CIFAR-10: ResNet-18 features of 32 px images, then kNN and the
sweep. It is meant for an accelerator.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from ssl_jax import models, parallel
from ssl_jax.evals import draws, features, knn, linear

FLAGS = flags.FLAGS
TEMPERATURE, NEIGHBOURS = 0.1, 200
# Training features and labels, test features and labels.
Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Measurement(NamedTuple):
    """Accuracy of an evaluation, with its wall-clock and CPU seconds."""

    accuracy: float
    wall: float
    cpu: float


def main(argv: list[str]) -> None:
    """Runs the benchmark; see the module's docstring."""
    del argv
    with jax.set_mesh(parallel.make_mesh()):
        if FLAGS.resnet18:
            time_resnet18(FLAGS.rows)
        else:
            compare(clustered_features(FLAGS.rows, FLAGS.features, FLAGS.classes))


def clustered_features(rows: int, width: int, classes: int) -> Split:
    """Returns Gaussian clusters in directions of very different scales; a sixth is the test set."""
    rng = np.random.default_rng(0)
    y = np.arange(rows) % classes
    centres = rng.normal(size=(classes, width)) * 0.1
    mix = np.linalg.qr(rng.normal(size=(width, width)))[0] * np.logspace(0, -1.5, width)
    x = ((centres[y] + rng.normal(size=(rows, width))) @ mix).astype(np.float32)
    test = rng.permutation(rows) < rows // 6
    return x[~test], y[~test], x[test], y[test]


def compare(split: Split) -> None:
    """Prints times and accuracies of ssl_jax and of scikit-learn."""
    print(f"train {split[0].shape}, test {split[2].shape}, {jax.devices()}", flush=True)
    sharding = parallel.rows(parallel.make_mesh())
    options: dict[str, Any] = {"k": NEIGHBOURS, "temperature": TEMPERATURE, "sharding": sharding}
    _compare("kNN", lambda: knn.accuracy(*split, **options), lambda: _sklearn_knn(*split))
    ours = lambda: linear.sweep(*split, sharding=sharding)[0]["accuracy"]  # noqa: E731
    _compare("linear sweep", ours, lambda: _sklearn_sweep(*split))


def _compare(name: str, ours: Callable[[], float], theirs: Callable[[], float]) -> None:
    for label, call in (("first call", ours), ("again", ours)):
        mine = _measure(call)
        print(f"{name}, ssl_jax, {label}: {_format(mine)}", flush=True)
    other = _measure(theirs)
    print(f"{name}, scikit-learn: {_format(other)}")
    wall, cpu = other.wall / mine.wall, other.cpu / mine.cpu
    print(f"{name}: scikit-learn takes {wall:.2f} x the wall time and {cpu:.2f} x the CPU time")


def _measure(call: Callable[[], float]) -> Measurement:
    wall, cpu = time.perf_counter(), time.process_time()
    accuracy = call()
    return Measurement(accuracy, time.perf_counter() - wall, time.process_time() - cpu)


def _format(result: Measurement) -> str:
    accuracy = 100 * result.accuracy
    return f"{result.wall:.2f} s wall, {result.cpu:.2f} s CPU, accuracy {accuracy:.2f}"


def _sklearn_knn(train_x: np.ndarray, train_y: Any, test_x: np.ndarray, test_y: Any) -> float:
    train_x, test_x = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train_x, test_x))
    # For unit rows, distance^2 = 2 - 2 * similarity.
    votes = lambda distance: np.exp((1 - distance**2 / 2) / TEMPERATURE)  # noqa: E731
    model = KNeighborsClassifier(NEIGHBOURS, weights=votes, algorithm="brute", n_jobs=-1)
    return float(model.fit(train_x, train_y).score(test_x, test_y))


def _sklearn_sweep(train_x: np.ndarray, train_y: Any, test_x: np.ndarray, test_y: Any) -> float:
    """Runs scikit-learn with the L2 strengths, warm starts and held-out fold of `linear.sweep`."""
    mean, deviation = draws.moments(train_x)
    x, test = (train_x - mean) / deviation, (test_x - mean) / deviation
    fold = draws.stratified_folds(train_y, linear.FOLDS, np.random.default_rng([0, 0]))
    model = LogisticRegression(warm_start=True, max_iter=300)
    scores = {}
    held_out = fold == 0
    for l2 in sorted(linear.L2, reverse=True):
        model.set_params(C=1 / ((~held_out).sum() * l2)).fit(x[~held_out], train_y[~held_out])
        scores[l2] = model.score(x[held_out], train_y[held_out])
    best = max(scores, key=lambda l2: scores[l2])
    return float(model.set_params(C=1 / (len(x) * best)).fit(x, train_y).score(test, test_y))


def time_resnet18(rows: int) -> None:
    """Prints the seconds of each part; images are noise, so accuracies mean nothing."""
    mesh = parallel.make_mesh()
    on_cpu = jax.default_backend() == "cpu"
    dtype = jnp.float32 if on_cpu else jnp.bfloat16
    encoder = models.get("resnet18", stem="cifar", dtype=dtype)
    variables = encoder.init(jax.random.key(0), jnp.zeros((2, 32, 32, 3)), False)

    @jax.jit
    def fn(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        images = batch["image"].astype(jnp.float32) / 255
        return {"x": jnp.asarray(encoder.apply(variables, images, False)), "mask": batch["mask"]}

    b = -(-FLAGS.batch // mesh.size) * mesh.size
    image = np.random.default_rng(0).integers(0, 256, (b, 32, 32, 3), np.uint8)
    batch = {"image": image, "mask": np.ones(b, bool)}
    jax.block_until_ready(fn(parallel.to_global(batch, mesh)))
    start = time.perf_counter()
    count = -(-rows // b)
    x = features.collect(lambda batch: fn(parallel.to_global(batch, mesh)), [batch] * count)["x"]
    x = x[:rows] + np.random.default_rng(1).normal(size=(rows, x.shape[1])).astype(np.float32)
    y = np.arange(rows) % 10
    print(f"features {x.shape} on {jax.devices()}: {time.perf_counter() - start:.1f} s")
    test = np.arange(rows) % 6 == 0
    split = x[~test], y[~test], x[test], y[test]
    sharding = parallel.rows(mesh)
    for name, call in (
        ("kNN", lambda: knn.accuracy(*split, k=NEIGHBOURS, sharding=sharding)),
        ("linear sweep", lambda: linear.sweep(*split, sharding=sharding)[0]["accuracy"]),
    ):
        for label in ("first call", "again"):
            print(f"{name}, {label}: {_measure(call).wall:.2f} s", flush=True)


if __name__ == "__main__":
    flags.DEFINE_integer("rows", 20_000, "Examples; a sixth of them is the test set.")
    flags.DEFINE_integer("features", 512, "Dimensions of the features.")
    flags.DEFINE_integer("classes", 10, "Classes.")
    flags.DEFINE_integer("batch", 512, "Batch size of the ResNet-18.")
    flags.DEFINE_bool("resnet18", False, "Time an evaluation of ResNet-18 features instead.")
    app.run(main)
