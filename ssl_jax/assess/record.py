"""What an evaluation leaves in the workdir beside its numbers, and whether it was made already."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ssl_jax import components, parallel
from ssl_jax.assess import images
from ssl_jax.assess.setup import Setup
from ssl_jax.assess.subjects import TRAINED
from ssl_jax.evals import files, saliency, table
from ssl_jax.report.figures import image_grids
from ssl_jax.rundir import workdir
from ssl_jax.training.parts import Parts

OCCLUDED = 8  # images
DONE = ".done"  # last file of an evaluation: each protocol, and by which settings it was made


def reprint(config: ConfigDict, path: Path, step: int) -> bool:
    """Prints the table again if `evaluate` has made it of this step by these settings."""
    done, wanted = _done(path), settings(config, step)
    if not done or any(done.get(word) != wanted for word in config.eval.protocols):
        return False
    names = [f"linear_{n}" if n else "linear" for n in config.eval.labels_per_class]
    names = [*names, *(word for word in config.eval.protocols if word != "linear"), "classifier"]
    found = [file for name in names if (file := path / "eval" / f"{name}.json").exists()]
    print(table.text({file.stem: json.loads(file.read_text()) for file in found}), flush=True)
    return True


def begin(setup: Setup) -> None:
    """Removes what is not of this step, and the mark of what is made anew."""
    files.forget_other_steps(setup.path, setup.subject.step)
    if not setup.transfer:
        _mark(setup, made=False)


def finish(setup: Setup) -> None:
    """Marks the protocols as made."""
    if not setup.transfer:
        _mark(setup, made=True)


def _mark(setup: Setup, *, made: bool) -> None:
    words, wanted = setup.config.eval.protocols, settings(setup.config, setup.subject.step)
    done = {word: by for word, by in _done(setup.path).items() if word not in words}
    # Of another step, no number is left.
    done = {word: by for word, by in done.items() if by["step"] == setup.subject.step}
    done |= dict.fromkeys(words, wanted) if made else {}
    if done:
        workdir.write_json(setup.path / "eval" / DONE, done)
    else:
        (setup.path / "eval" / DONE).unlink(missing_ok=True)


def _done(path: Path) -> dict[str, Any]:
    file = path / "eval" / DONE
    found = json.loads(file.read_text()) if file.exists() else {}
    # Before there was a choice of protocols, this file held the settings of all.
    return {word: by for word, by in found.items() if isinstance(by, dict)}


def settings(config: ConfigDict, step: int) -> dict[str, Any]:
    """What the numbers depend on beside the checkpoint, as JSON gives it back."""
    of_eval = {field: value for field, value in config.eval.items() if field != "protocols"}
    found = {"step": step, "split": config.data.split, "eval_split": config.data.eval_split}
    return json.loads(json.dumps(found | of_eval))


def write_generated(config: ConfigDict, parts: Parts, state: Any, path: Path) -> None:
    """Draws images that the model generates, if it does, as figures/samples.png."""
    samples = parts.method.samples
    if samples is None:
        return
    generate = jax.jit(samples, static_argnums=3, out_shardings=parallel.replicated(parts.mesh))
    key = jax.random.key(config.train.seed)
    drawn = generate(state.params, state.extra, key, image_grids.GENERATED)
    if jax.process_index() == 0:
        image_grids.draw_generated(np.asarray(drawn), path / "figures" / "samples.png")


def write_sample(setup: Setup, test: images.Columns) -> None:
    """Keeps features, labels and pictures of some images for the report.

    They are drawn at random, since the images of a folder lie class by class; of the first few it
    keeps what their features notice, too.
    """
    config, source, subject = setup.config, setup.test or setup.source, setup.subject
    order = np.random.Generator(np.random.PCG64(config.train.seed)).permutation(len(test["index"]))
    rows = {name: column[order[: files.MAX_SAMPLE]] for name, column in test.items()}
    batches = components.eval_batches(
        config, source, indices=rows["index"], batch_size=config.eval.batch_size
    )
    valid = [jax.tree.map(lambda x, m=batch["mask"]: x[m], batch["input"]) for batch in batches]
    shown = jax.tree.map(lambda *parts: np.concatenate(parts), *valid)
    count, picture = len(rows["index"]), setup.input.picture
    pictures = occlusion = None
    if picture:
        pictures = np.stack(
            [picture(jax.tree.map(lambda x, i=i: x[i], shown)) for i in range(count)]
        )
    if isinstance(shown, np.ndarray) and shown.ndim == 4 and shown.dtype == np.uint8:
        # On this process's devices alone: the others do not come here.
        weights = jax.device_get(subject.weights[TRAINED])
        encode = partial(jax.jit(subject.features), weights)
        occlusion = saliency.occlusion(encode, shown[:OCCLUDED])
    files.write_sample(
        setup.path,
        features=rows[TRAINED],
        label=rows["label"],
        image=pictures,
        index=rows["index"],
        classes=source.classes,
        saliency=occlusion,
    )
