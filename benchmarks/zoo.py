"""All methods on CIFAR-10 with the same budget, against untrained encoders and raw pixels.

    python -m benchmarks.zoo --data_dir=DATA_DIR --workdir=runs/zoo

Trains every `configs/*.py:cifar10_cpu` with `ssl_jax.train` on a part of CIFAR-10 that is small
enough for several epochs, with the same number of steps and seeds. Prints linear and kNN accuracy
on all test images: the mean and half the range over seeds. Completed runs are not repeated. The
encoder is the config's: the same small ResNet for all methods except those that need their own (the
ViT of MAE, the deep belief network). The table also lists each encoder untrained. Distillation is
excluded because it needs a teacher.
"""

import importlib
import itertools
import json
import pathlib
import statistics
import subprocess
import sys

from absl import app, flags
from ml_collections import ConfigDict

FLAGS = flags.FLAGS
CONFIGS = pathlib.Path("configs")
EXCLUDED = {"common", "distillation"}
UNTRAINED, RAW = "untrained encoder", "raw pixels"
Accuracies = dict[str, dict[str, dict[int, float]]]  # {evaluation: {row: {seed: accuracy}}}


def main(argv: list[str]) -> None:
    """Runs the benchmark; see the module's docstring."""
    del argv
    names = FLAGS.methods or _all_methods()
    for seed in range(FLAGS.seeds):
        for name in names:
            _train(name, seed)
    print(table(gather(names)))


def _train(name: str, seed: int) -> None:
    folder = pathlib.Path(FLAGS.workdir) / f"{name}_{seed}"
    if (folder / "eval" / ".done").exists():
        return
    command = [sys.executable, "-m", "ssl_jax.train", f"--config=configs/{name}.py:cifar10_cpu"]
    command += [f"--workdir={folder}", *_fields(name, seed)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
    result = "done" if code == 0 else f"exit {code}, see {log.name}"
    print(f"{name}, seed {seed}: {result}", flush=True)


def _fields(name: str, seed: int) -> list[str]:
    fields = {
        "data.dir": FLAGS.data_dir,
        "data.split": f"train[:{FLAGS.images}]",
        "train.seed": seed,
        "train.steps": FLAGS.steps,
        "train.checkpoint_every": FLAGS.steps,
        "augment.size": FLAGS.size,
        "eval.labels_per_class": "(0,)",
        # Baselines depend only on the encoder, so one method per encoder measures them.
        "eval.baselines": name == _first_method_with_encoder(name),
    }
    if _config(name).augment.local:
        fields["augment.local.size"] = FLAGS.size * 2 // 3  # as in the configs
    return [f"--config.{field}={value}" for field, value in fields.items()]


def _config(name: str) -> ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config("cifar10_cpu")


def _first_method_with_encoder(name: str) -> str:
    encoder = _config(name).model.name
    return next(other for other in _all_methods() if _config(other).model.name == encoder)


def _all_methods() -> list[str]:
    return sorted({path.stem for path in CONFIGS.glob("*.py")} - EXCLUDED)


def gather(names: list[str]) -> Accuracies:
    """Returns the accuracies of all completed evaluations in per cent."""
    accuracies: Accuracies = {"linear": {}, "knn": {}}
    for name, seed in itertools.product(names, range(FLAGS.seeds)):
        folder = pathlib.Path(FLAGS.workdir) / f"{name}_{seed}"
        for evaluation, rows in accuracies.items():
            file = folder / "eval" / f"{evaluation}.json"
            if not file.exists():
                continue
            encoder = json.loads((folder / "config.json").read_text())["model"]["name"]
            baselines = {RAW: RAW, UNTRAINED: f"{encoder}, untrained"}
            for features, numbers in json.loads(file.read_text())["results"].items():
                row = rows.setdefault(baselines.get(features, name), {})
                row[seed] = 100 * numbers["accuracy"]
    return accuracies


def table(accuracies: Accuracies) -> str:
    """Returns a Markdown table, best method first: mean and half the range over seeds."""
    linear = accuracies["linear"]
    rows = sorted(linear, key=lambda row: -statistics.mean(linear[row].values()))
    lines = ["| features | linear | 20-NN | seeds |", "|---|---|---|---|"]
    for row in rows:
        cells = [_cell([*by_row.get(row, {}).values()]) for by_row in accuracies.values()]
        lines.append(f"| {row} | {' | '.join(cells)} | {len(linear[row])} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.mean(values):.1f} ± {(max(values) - min(values)) / 2:.1f}"


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Folder where tensorflow-datasets prepared cifar10.")
    flags.DEFINE_string("workdir", "runs/zoo", "Folder of the runs.")
    flags.DEFINE_list("methods", [], "Names of configs; default: all.")
    flags.DEFINE_integer("seeds", 3, "Seeds per method.", lower_bound=1)
    flags.DEFINE_integer("steps", 400, "Training steps of 128 images.")
    flags.DEFINE_integer("size", 16, "Width and height of a full-size view in pixels.")
    flags.DEFINE_integer("images", 10000, "Training images, at most 50,000; also train probes.")
    flags.mark_flag_as_required("data_dir")
    app.run(main)
