"""Fills the same holes with each of the three losses of a context encoder.

    python -m benchmarks.context_fillings --data_dir=DATA_DIR --figure=docs/images/NAME.png

Trains `configs/context_encoder.py:cifar10_cpu` once for each loss with `ssl_jax.train`. Draws test
images, their holes, and the content that each network predicts. Prints a Markdown table: the error
of the reconstruction in the holes of the last training steps beside that of the best single colour,
and linear and kNN accuracy on all test images. Completed runs are not repeated.
"""

import json
import pathlib
import statistics
import subprocess
import sys

import jax
import matplotlib
import numpy as np
from absl import app, flags
from matplotlib.figure import Figure

from ssl_jax import components, parallel
from ssl_jax import config as configuration
from ssl_jax.data import sources
from ssl_jax.evals import subjects
from ssl_jax.report.figures import image_grids, style

FLAGS = flags.FLAGS
LOSSES = ("reconstruction", "adversarial", "both")
LAST = 100  # training steps whose mean error is reported


def main(argv: list[str]) -> None:
    """Runs the benchmark; see the module's docstring."""
    del argv
    for loss in LOSSES:
        _train(loss)
    print(_table())
    style.save(_figure(), FLAGS.figure)


def _folder(loss: str) -> pathlib.Path:
    return pathlib.Path(FLAGS.workdir) / f"{loss}_{FLAGS.mask}_{FLAGS.steps}"


def _train(loss: str) -> None:
    folder = _folder(loss)
    if (folder / "eval" / ".done").exists():
        return
    fields = {
        "data.dir": FLAGS.data_dir,
        "data.split": f"train[:{FLAGS.images}]",
        "train.steps": FLAGS.steps,
        "train.checkpoint_every": FLAGS.steps,
        "method.loss": loss,
        "method.mask": FLAGS.mask,
        "eval.labels_per_class": "(0,)",
        "eval.baselines": False,
    }
    command = [sys.executable, "-m", "ssl_jax.train", f"--workdir={folder}"]
    command += ["--config=configs/context_encoder.py:cifar10_cpu"]
    command += [f"--config.{field}={value}" for field, value in fields.items()]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
    print(f"{loss}: done", flush=True)


def _table() -> str:
    lines = ["| loss | error in the hole | best colour | linear | 20-NN |", "|---" * 5 + "|"]
    for loss in LOSSES:
        text = (_folder(loss) / "metrics.jsonl").read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        last = [row for row in rows if row["step"] > FLAGS.steps - LAST]
        names = ("reconstruction_error", "reconstruction_chance")
        errors = [statistics.mean(row[name] for row in last if name in row) for name in names]
        lines.append(
            f"| {loss} | {errors[0]:.4f} | {errors[1]:.4f} | "
            f"{_accuracy(loss, 'linear'):.1f} | {_accuracy(loss, 'knn'):.1f} |"
        )
    return "\n".join(lines)


def _accuracy(loss: str, evaluation: str) -> float:
    results = json.loads((_folder(loss) / "eval" / f"{evaluation}.json").read_text())["results"]
    return 100 * results["context_encoder"]["accuracy"]


def _fillings(loss: str) -> np.ndarray:
    """Returns original, hole and filled image of each drawn image, [n, 3, h, w, c]."""
    config = configuration.load(_folder(loss))
    mesh = parallel.make_mesh(jax.devices()[:1])
    subject = subjects.subject_from_checkpoint(
        config, _folder(loss), mesh, baselines=False, teacher=False
    )
    method = components.make_method(config, FLAGS.steps, FLAGS.images, 1)
    test = sources.open_source(
        config.data.source, data_dir=config.data.dir, split=config.data.eval_split
    )
    indices = np.random.default_rng(0).permutation(test.size)[: FLAGS.columns]
    (batch,) = components.eval_batches(config, test, indices=indices, batch_size=FLAGS.columns)
    images = components.make_input(config).to_model(jax.numpy.asarray(batch["input"]))
    draw = jax.jit(method.pictures[0].draw)
    return np.asarray(draw(*subject.weights[subjects.TRAINED], images, jax.random.key(0)))


def _figure() -> Figure:
    drawn = [_fillings(loss) for loss in LOSSES]
    rows = {"original": drawn[0][:, 0], "hole": drawn[0][:, 1]}
    rows |= {loss: images[:, 2] for loss, images in zip(LOSSES, drawn, strict=True)}
    with matplotlib.rc_context(style.STYLE):
        figure = Figure(figsize=(1.6 + 0.8 * FLAGS.columns, 0.82 * len(rows)))
        axes = figure.subplots(len(rows), FLAGS.columns)
        figure.subplots_adjust(1.5 / figure.get_figwidth(), 0.01, 0.99, 0.99, 0.05, 0.05)
        for line, (name, images) in zip(axes, rows.items(), strict=True):
            for ax, image in zip(line, images, strict=True):
                image_grids.show_image(ax, image)
            place = {"x": -0.12, "y": 0.5, "ha": "right", "va": "center"}
            line[0].text(s=name, transform=line[0].transAxes, weight="bold", **place)
        return figure


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Folder of tensorflow-datasets.", required=True)
    flags.DEFINE_string("workdir", "runs/context_fillings", "Folder of the runs.")
    flags.DEFINE_string("figure", "context_fillings.png", "File of the figure: .png, .pdf, .svg.")
    flags.DEFINE_string("mask", "center", "Shape of the holes.")
    flags.DEFINE_integer("steps", 400, "Training steps of each run.")
    flags.DEFINE_integer("images", 20_000, "Training images.")
    flags.DEFINE_integer("columns", 12, "Images in the figure.")
    app.run(main)
