"""Evaluation of a training state from its config: features, kNN, linear evaluation, files, table.

Beside the method's features stand two baselines under the same protocol: the same encoder
untrained, and raw pixels.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import build, parallel, supervised, workdir
from ssl_jax.data import pipeline, sources
from ssl_jax.evals import features, suite
from ssl_jax.report import figures

Columns = dict[str, np.ndarray]

TRAINED, UNTRAINED, RAW = "trained", "untrained encoder", "raw pixels"
DONE = ".done"  # last file of an evaluation: by which settings it was made


def evaluate(config: ConfigDict, parts: build.Parts, state: Any, path: Path) -> None:
    """Writes eval/*.json and eval/sample.npz into the run at `path`, and prints the table.

    A method that generates images also has figures/samples.png. Without labelled test images only
    these and the sample are written: the map and the neighbours need none.
    """
    write_generated(config, parts, state, path)
    read = reader(config, parts, state)
    is_main = jax.process_index() == 0
    shown = parts.test or parts.source
    test = read(shown, 0 if parts.test else suite.MAX_SAMPLE)
    if is_main:
        write_sample(config, shown, test, path)
    if parts.test is None:
        print("no labelled test images: nothing to evaluate by", flush=True)
        return
    train = read(parts.source, config.eval.max_train)
    if not is_main:
        return
    sets = {config.method.name: TRAINED}
    if config.eval.baselines:
        sets |= {UNTRAINED: UNTRAINED, RAW: RAW}
    arrays = {
        name: (train[column], train["label"], test[column], test["label"])
        for name, column in sets.items()
    }
    _forget(path, int(state.step))
    results: dict[str, Any] = {}
    protocols = [("linear", n) for n in config.eval.labels_per_class] + [("knn", 0)]
    for kind, count in protocols:
        if kind not in parts.method.evals:
            continue
        # One at a time: a protocol that its labels do not allow costs none of the others.
        found = suite.run(
            arrays,
            step=int(state.step),
            evals=(kind,),
            k=config.eval.knn_k,
            temperature=config.eval.knn_temperature,
            labels_per_class=(count,),
            draws=config.eval.draws,
            seed=config.train.seed,
            images=_images(config, parts, len(train["label"])),
        )
        suite.write(path, found)
        results |= found
    if "prediction" in test:
        results["classifier"] = suite.classifier(
            test["prediction"],
            test["label"],
            name=config.method.name,
            step=int(state.step),
            protocol={"classifier": "the method's own, trained with the encoder without labels"}
            | _test_images(config, parts.test),
        )
        suite.write(path, {"classifier": results["classifier"]})
    elif parts.method.logits:
        print("no accuracy of the method's own classifier: it tells other classes", flush=True)
    workdir.write_json(path / "eval" / DONE, _settings(config, int(state.step)))
    print(suite.table(results), flush=True)


def tells_classes(parts: build.Parts) -> bool:
    """Whether the classes of the method's own classifier are those of the data."""
    return parts.method.classes == tuple(parts.source.classes)


def _images(config: ConfigDict, parts: build.Parts, used: int) -> dict[str, Any]:
    """What the protocol says of the images."""
    drawn = f", drawn by seed {config.train.seed}" if used < parts.source.size else ""
    return {
        "train images": f"{used:,} of {parts.source.size:,} ({config.data.split}){drawn}",
        **_test_images(config, parts.source),
        "untrained encoder": "initial weights; BatchNorm statistics of initialisation "
        "(mean 0, variance 1)",
    }


def _test_images(config: ConfigDict, source: sources.Source) -> dict[str, str]:
    return {
        "test images": f"{config.data.eval_split} of {source.name}",
        "view": f"{config.augment.size} px, central {config.eval.crop:g} of the short side",
    }


def evaluate_classifier(
    config: ConfigDict, parts: supervised.Parts, state: Any, path: Path
) -> None:
    """Writes eval/finetune.json into the fine-tuning at `path`, and prints the accuracy."""
    if parts.test is None:
        print("no labelled test images: nothing to evaluate by", flush=True)
        return

    @partial(jax.jit, out_shardings=parallel.replicated(parts.mesh))
    def columns(state: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        images = batch.pop("image").astype(jnp.float32) / 255
        stats = state.extra["batch_stats"]
        logits = parts.networks.features(state.params, stats, images, upto="classifier")
        return batch | {"prediction": logits.argmax(-1)}

    test = _extract(config, parts.mesh, partial(columns, state), parts.test)
    if jax.process_index():
        return
    options = config.finetune
    share = f"{options.labels_per_class or options.fraction:g} of each class"
    head = f" and {options.head_layer} of its head's layers" if options.head_layer else ""
    found = suite.classifier(
        test["prediction"],
        test["label"],
        name=config.method.name,
        step=int(state.step),
        protocol={
            "classifier": f"linear, fine-tuned with the encoder{head} from {options.pretrained}",
            "labels": f"{parts.source.size:,} of {config.data.split}, {share}, "
            f"seed {config.train.seed}",
            **_test_images(config, parts.test),
        },
    )
    numbers = found["results"][config.method.name]
    numbers |= {"n_labels": parts.source.size, "classes": len(parts.source.classes)}
    numbers |= {"head_layer": config.finetune.head_layer}
    suite.write(path, {"finetune": found})
    print(
        f"top-1 accuracy {100 * numbers['accuracy']:.2f} on {numbers['n_test']:,} test images, "
        f"fine-tuned on {parts.source.size:,} labels",
        flush=True,
    )


def _forget(path: Path, step: int) -> None:
    """Removes numbers of other steps, lest one table mix them."""
    folder = path / "eval"
    (folder / DONE).unlink(missing_ok=True)
    for file in folder.glob("*.json"):
        if json.loads(file.read_text()).get("step") != step:
            file.unlink()


def reprint(config: ConfigDict, path: Path, step: int) -> bool:
    """Prints the table again if `evaluate` has made it of this step by these settings."""
    folder = path / "eval"
    if not (folder / DONE).exists():
        return False
    if json.loads((folder / DONE).read_text()) != _settings(config, step):
        return False
    names = [f"linear_{n}" if n else "linear" for n in config.eval.labels_per_class]
    names += ["knn", "classifier"]
    files = [file for name in names if (file := folder / f"{name}.json").exists()]
    print(suite.table({file.stem: json.loads(file.read_text()) for file in files}), flush=True)
    return True


def _settings(config: ConfigDict, step: int) -> dict[str, Any]:
    """What the numbers depend on beside the checkpoint, as JSON gives it back."""
    settings = {"step": step, "eval_split": config.data.eval_split, **config.eval.to_dict()}
    return json.loads(json.dumps(settings))


def reader(
    config: ConfigDict, parts: build.Parts, state: Any
) -> Callable[[sources.Source, int], Columns]:
    """Returns read(source, limit): every feature set of the source's images, decoded once.

    The columns are those of `features.extract`. `limit` > 0 takes that many images, drawn at
    random by the run's seed.
    """
    mesh = parts.mesh
    trees = {TRAINED: (state.params, state.extra)}
    if config.eval.baselines:
        fresh = parts.new_state()
        trees[UNTRAINED] = (fresh.params, fresh.extra)

    @partial(jax.jit, out_shardings=parallel.replicated(mesh))
    def columns(trees: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        images = batch.pop("image").astype(jnp.float32) / 255
        found = {
            name: parts.method.features(params, extra, images)
            for name, (params, extra) in trees.items()
        }
        if config.eval.baselines:
            found[RAW] = images.reshape(len(images), -1)
        if parts.method.logits and tells_classes(parts):
            params, extra = trees[TRAINED]
            logits = parts.method.logits(params, extra, images)
            found["prediction"] = logits.argmax(-1)
        return batch | found

    def read(source: sources.Source, limit: int) -> Columns:
        indices = sample_indices(source.size, limit, config.train.seed)
        return _extract(config, mesh, partial(columns, trees), source, indices)

    return read


def _extract(
    config: ConfigDict,
    mesh: Mesh,
    fn: Callable[..., dict[str, jax.Array]],
    source: sources.Source,
    indices: np.ndarray | None = None,
) -> Columns:
    """The columns that `fn` makes of the source's images, of all devices' batches."""
    batches = eval_batches(
        config,
        source,
        indices=indices,
        batch_size=-(-config.eval.batch_size // mesh.size) * mesh.size,
        host=(jax.process_index(), jax.process_count()),
    )
    return features.extract(lambda batch: fn(parallel.to_global(batch, mesh)), batches)


def eval_batches(config: ConfigDict, source: sources.Source, **options: Any) -> Any:
    """The source's images as evaluation sees them: resized, centre-cropped, not augmented."""
    return pipeline.eval_batches(
        source,
        size=config.augment.size,
        crop=config.eval.crop,
        on_bad_image=config.data.on_bad_image,
        max_bad=config.data.max_bad,
        **options,
    )


def sample_indices(size: int, limit: int, seed: int) -> np.ndarray | None:
    """`limit` of `size` indices, drawn by `seed` and sorted; None for all."""
    if not 0 < limit < size:
        return None
    return np.sort(np.random.Generator(np.random.PCG64(seed)).permutation(size)[:limit])


def write_generated(config: ConfigDict, parts: build.Parts, state: Any, path: Path) -> None:
    """Draws images that the model generates, if it does, as figures/samples.png."""
    samples = parts.method.samples
    if samples is None:
        return
    generate = jax.jit(samples, static_argnums=3, out_shardings=parallel.replicated(parts.mesh))
    key = jax.random.key(config.train.seed)
    images = generate(state.params, state.extra, key, figures.GENERATED)
    if jax.process_index() == 0:
        figures.sample_grid(np.asarray(images), path / "figures" / "samples.png")


def write_sample(config: ConfigDict, source: sources.Source, test: Columns, path: Path) -> None:
    """Keeps features, labels and pictures of some images for the report."""
    chosen = sample_indices(len(test["index"]), suite.MAX_SAMPLE, config.train.seed)
    rows = {name: test[name] if chosen is None else test[name][chosen] for name in test}
    batches = eval_batches(config, source, indices=rows["index"], batch_size=config.eval.batch_size)
    images = np.concatenate([batch["image"][batch["mask"]] for batch in batches])
    suite.write_sample(
        path,
        features=rows[TRAINED],
        label=rows["label"],
        image=images,
        index=rows["index"],
        classes=source.classes,
    )
