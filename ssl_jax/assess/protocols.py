"""The protocols that need more than features and labels: other images, or the encoder itself."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from ssl_jax import parallel
from ssl_jax.assess import images
from ssl_jax.assess.setup import Setup
from ssl_jax.assess.subjects import RAW
from ssl_jax.data import pipeline
from ssl_jax.data.source import Source, subset
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.evals import label_free, linear, protocols, sgd, suite
from ssl_jax.evals.suite import FeatureSet
from ssl_jax.models import layers

Results = tuple[dict[str, Any], dict[str, suite.Predictions]]
LAYER_BYTES = 2**31  # features of all layers that the host holds of one split


def without_labels(setup: Setup, columns: images.Columns) -> Results:
    """Of the images that `columns` are of: test images, or train where there are none."""
    config, shown = setup.config, setup.test or setup.source
    pairs = images.pairs(config, setup.subject, setup.mesh, shown, label_free.PAIR_ROWS)
    results = {
        name: label_free.measure(columns[column], pairs[column])
        for name, column in setup.sets.items()
    }
    split = config.data.eval_split if setup.test else config.data.split
    protocol = protocols.without_labels("two of the run's random views (augment)")
    protocol |= {"images": f"{split} of {shown.name}"}
    return {"label_free": _evaluation(setup, "label_free", protocol, results)}, {}


def linear_sgd(setup: Setup, sets: dict[str, FeatureSet], indices: np.ndarray) -> Results:
    """Linear evaluation by SGD on random crops of the train images `indices`."""
    config, mesh = setup.config, setup.mesh
    _, labels, _, test_labels = next(iter(sets.values()))
    suite.check_labels(labels, split="train")
    suite.check_labels(test_labels, split="test")
    seed, options = config.train.seed, config.eval
    batch_size = images.whole(min(options.sgd_batch_size, len(indices)), mesh)
    # Of few images on many devices, some come twice an epoch.
    chosen = indices if len(indices) >= batch_size else np.resize(indices, batch_size)
    held_out = sgd.hold_out(labels, seed)
    if setup.input.light is None:
        message = "eval.protocols: this modality has no light augmentation for 'linear_sgd'"
        raise Fault(message, BAD_CONFIG)
    light = setup.input.light()
    source = subset(setup.source, chosen)
    batches = images.random_views(config, source, light, options.sgd_epochs)(batch_size)
    steps = pipeline.total_steps(len(chosen), batch_size, options.sgd_epochs)
    encode = images.encoder(setup.subject, raw=options.baselines)
    found = sgd.evaluate(
        lambda weights, views: _named(setup, encode(weights, views)),
        setup.subject.weights,
        _coded(setup, batches, labels, held_out),
        sets,
        held_out=held_out,
        rates=options.sgd_lr,
        batch_size=batch_size,
        total_steps=steps,
    )
    protocol = protocols.linear_sgd(
        epochs=options.sgd_epochs,
        batch_size=batch_size,
        steps=steps,
        rates=options.sgd_lr,
        views=light.description,
        seed=seed,
    )
    results = {name: suite.sizes(sets[name]) | numbers for name, (numbers, _) in found.items()}
    evaluation = _evaluation(setup, "linear_sgd", protocol | setup.images(len(indices)), results)
    return {"linear_sgd": evaluation}, {"linear_sgd": {n: p for n, (_, p) in found.items()}}


def _named(setup: Setup, found: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: found[column] for name, column in setup.sets.items()}


def _coded(
    setup: Setup, batches: Iterator[images.Columns], labels: np.ndarray, held_out: np.ndarray
) -> Iterator[dict[str, jax.Array]]:
    """Global batches with labels as 0..k-1, and which rows are held out."""
    classes = np.unique(labels)
    for batch in batches:
        rows = {
            "views": batch["views"],
            "label": np.searchsorted(classes, batch["label"]).astype(np.int32),
            "held_out": held_out[batch["index"] % len(held_out)],
        }
        yield parallel.to_global(rows, setup.mesh)


def by_layer(setup: Setup) -> Results:
    """Linear evaluation of every block of the trained encoder, and of the untrained one."""
    results, names = {}, {n: c for n, c in setup.sets.items() if c != RAW}
    used = 0
    for name, column in names.items():
        extract = _layers(setup, setup.subject.weights[column])
        train, test = extract(setup.source, setup.config.eval.max_train), extract(setup.test, 0)
        suite.check_labels(train["label"], split="train")
        suite.check_labels(test["label"], split="test")
        order = layers.order([key for key in train if key not in ("label", "index")])
        numbers: list[float] = []
        for layer in order:
            arrays = (train[layer], train["label"], test[layer], test["label"])
            sharding = parallel.rows(setup.mesh)
            found, _ = linear.sweep(*arrays, seed=setup.config.train.seed, sharding=sharding)
            numbers.append(found["accuracy"])
        used = len(train["label"])
        results[name] = {"layers": order, "accuracy": numbers, "n_train": used}
        results[name] |= {"n_test": len(test["label"])}
    protocol = protocols.layers(linear.L2, setup.config.train.seed) | setup.images(used)
    return {"layers": _evaluation(setup, "layers", protocol, results)}, {}


def _layers(setup: Setup, weights: Any) -> Callable[[Any, int], images.Columns]:
    """Returns extract(source, limit): all layers of the source's images, as memory allows."""
    config, mesh, subject = setup.config, setup.mesh, setup.subject
    to_model = setup.input.to_model

    @partial(jax.jit, out_shardings=parallel.replicated(mesh))
    def columns(weights: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return batch | subject.layers(weights, to_model(batch.pop("input")))

    one = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), setup.input.evaluated
    )
    shapes = jax.eval_shape(lambda w, x: subject.layers(w, to_model(x)), weights, one)
    most = LAYER_BYTES // sum(4 * shape.size for shape in shapes.values())

    def extract(source: Source, limit: int) -> images.Columns:
        limit = min(limit or source.size, most)
        indices = images.sample_indices(source.size, limit, config.train.seed)
        return images.extract(config, mesh, partial(columns, weights), source, indices)

    return extract


def _evaluation(setup: Setup, kind: str, protocol: dict[str, Any], results: dict[str, Any]) -> Any:
    return suite.evaluation(kind, protocol, setup.subject.step, results)
