"""All methods on CIFAR-10, each beside the same encoder without training.

    python -m benchmarks.zoo --data_dir=DATA_DIR --workdir=runs/zoo

Trains every `configs/*.py:cifar10_cpu` with `ssl_jax.train` on a part of CIFAR-10 that is small
enough for several epochs. A method gets 400 steps, or its own number in STEPS, and views of 16
pixels, or its own size in SIZES. Prints linear and kNN accuracy on all test images: the mean and
half the range over seeds. Completed runs are not repeated, and `--jobs` runs are trained at a time.
The encoder is the config's: the same small ResNet for all methods except those that need their own.
A gain is the difference to the same encoder, untrained, on images of the same size and colours.
"yes" means that the worst seed of the method is above the best seed of the untrained encoder.
"NAME:SUFFIX" in `--methods` trains the variant `cifar10_cpu_SUFFIX` of `configs/NAME.py`.
Distillation is excluded because it needs a teacher, and CPC on sound has no images.
`benchmarks.zoo_steps` reads the same runs.
"""

import importlib
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from absl import app, flags
from ml_collections import ConfigDict

FLAGS = flags.FLAGS
CONFIGS = pathlib.Path("configs")
EXCLUDED = {"common", "cpc_audio", "distillation"}  # no images, or a teacher is needed
VARIANTS = {"denoising:conv", "denoising:dense", "rotation:angle"}
DEFAULT_STEPS = 400
STEPS = {"mae": 1200, "rbm": 4000}  # methods that need more than the default
SIZES = {"jigsaw": 30, "relative_position": 30, "cpc_v1": 20, "cpc_v2": 20}  # in pixels
UNTRAINED, RAW = "untrained encoder", "raw pixels"
# Fields of the model that do not change the features of an untrained encoder.
NEUTRAL = ("name", "dtype", "init", "bn_group", "mean", "std", "width", "stem", "zero_gamma")
EVALUATIONS = {"linear": "linear", "knn": "20-NN"}


class Run(NamedTuple):
    """Method, length and seed of a run of the zoo."""

    name: str
    steps: int
    seed: int

    @property
    def folder(self) -> pathlib.Path:
        """Workdir of the run."""
        name = self.name.replace(":", "_")
        return pathlib.Path(FLAGS.workdir) / f"{name}_{self.steps}_{self.seed}"

    @property
    def encoder(self) -> str:
        """Encoder, its unusual options and its input: the same for the same untrained encoder."""
        model, usual = _config(self.name).model, _config("simclr").model
        parts = [model.name]
        parts += [
            f"{field}={value}"
            for field, value in model.items()
            if field not in NEUTRAL
            and value != usual.get(field, None if field == "kind" else value)
        ]
        parts += ["standardised input"] if any(model.get("mean", ())) else []
        parts += [f"{self.size} px"] if self.size != FLAGS.size else []
        return ", ".join(parts)

    @property
    def size(self) -> int:
        """Side of a full-size view, in pixels."""
        return SIZES.get(self.name.partition(":")[0], FLAGS.size)

    @property
    def raw(self) -> str:
        """Name of the row of raw pixels."""
        return f"{RAW}, {self.size} px"


Accuracies = dict[str, dict[str, dict[int, float]]]  # {evaluation: {row: {seed: accuracy}}}


def main(argv: list[str]) -> None:
    """Runs the benchmark; see the module's docstring."""
    del argv
    names = FLAGS.methods
    runs = [
        Run(name, FLAGS.steps or STEPS.get(name, DEFAULT_STEPS), seed)
        for seed in range(FLAGS.seeds)
        for name in names
    ]
    train(runs)
    print(table(names, gather(runs), {run.name: run.steps for run in runs}))


def train(runs: list[Run]) -> None:
    """Trains and evaluates the runs that are not complete, `--jobs` at a time."""
    with ThreadPoolExecutor(FLAGS.jobs) as pool:
        list(pool.map(_train, runs))


def _train(run: Run) -> None:
    if (run.folder / "eval" / ".done").exists():
        return
    method, variant = _variant(run.name)
    command = [sys.executable, "-m", "ssl_jax.train", f"--config=configs/{method}.py:{variant}"]
    command += [f"--workdir={run.folder}", *_fields(run)]
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / "log.txt").open("a") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
    result = "done" if code == 0 else f"exit {code}, see {log.name}"
    print(f"{run.name}, {run.steps} steps, seed {run.seed}: {result}", flush=True)


def _fields(run: Run) -> list[str]:
    fields = {
        "data.dir": FLAGS.data_dir,
        "data.split": f"train[:{FLAGS.images}]",
        "train.seed": run.seed,
        "train.steps": run.steps,
        "train.checkpoint_every": run.steps,
        "augment.size": run.size,
        "eval.labels_per_class": "(0,)",
        # Baselines depend only on the encoder, so one method per encoder measures them.
        "eval.baselines": run.name == _first_method_with_encoder(run),
    }
    if _config(run.name).augment.local:
        fields["augment.local.size"] = FLAGS.size * 2 // 3  # as in the configs
    return [f"--config.{field}={value}" for field, value in fields.items()]


def _config(name: str) -> ConfigDict:
    method, variant = _variant(name)
    return importlib.import_module(f"configs.{method}").get_config(variant)


def _variant(name: str) -> tuple[str, str]:
    """Returns config and variant: "denoising:dense" trains `cifar10_cpu_dense`."""
    method, _, suffix = name.partition(":")
    return method, f"cifar10_cpu_{suffix}" if suffix else "cifar10_cpu"


def _first_method_with_encoder(run: Run) -> str:
    same = (name for name in FLAGS.methods if run._replace(name=name).encoder == run.encoder)
    return next(same)


def all_methods() -> list[str]:
    """Returns the names of the configs that take part, and the other variants."""
    return sorted({path.stem for path in CONFIGS.glob("*.py")} - EXCLUDED | VARIANTS)


def gather(runs: list[Run]) -> Accuracies:
    """Returns the accuracies of all completed evaluations in per cent."""
    accuracies: Accuracies = {evaluation: {} for evaluation in EVALUATIONS}
    for run, (evaluation, rows) in itertools.product(runs, accuracies.items()):
        file = run.folder / "eval" / f"{evaluation}.json"
        if not file.exists():
            continue
        baselines = {RAW: run.raw, UNTRAINED: untrained(run.name)}
        for features, numbers in json.loads(file.read_text())["results"].items():
            row = rows.setdefault(baselines.get(features, run.name), {})
            row[run.seed] = 100 * numbers["accuracy"]
    return accuracies


def untrained(name: str) -> str:
    """Returns the name of the row of a method's encoder before training."""
    return f"{Run(name, 0, 0).encoder}, untrained"


def table(names: list[str], accuracies: Accuracies, steps: dict[str, int]) -> str:
    """Returns a Markdown table of the methods, best first, and then of the baselines."""

    def mean(row: str) -> float:
        return statistics.mean(accuracies["linear"].get(row, {0: 0.0}).values())

    titles = [f"{title} | gain | beyond seeds" for title in EVALUATIONS.values()]
    header = f"| method | steps | seeds | {' | '.join(titles)} | encoder |"
    lines = [header, "|---" * header.count(" |") + "|"]
    for name in sorted(names, key=mean, reverse=True):
        cells = [_comparison(by_row, name) for by_row in accuracies.values()]
        seeds = len(accuracies["linear"].get(name, {}))
        encoder = Run(name, 0, 0).encoder
        lines.append(f"| {name} | {steps[name]:,} | {seeds} | {' | '.join(cells)} | {encoder} |")
    lines += ["", f"| features | seeds | {' | '.join(EVALUATIONS.values())} |", "|---|---|---|---|"]
    baselines = {untrained(name) for name in names} | {Run(name, 0, 0).raw for name in names}
    for row in sorted(baselines, key=mean, reverse=True):
        cells = [_cell(by_row.get(row, {})) for by_row in accuracies.values()]
        lines.append(f"| {row} | {len(accuracies['linear'].get(row, {}))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _comparison(by_row: dict[str, dict[int, float]], name: str) -> str:
    """Returns the cells "accuracy | gain | whether every seed gains" of a method."""
    own, baseline = by_row.get(name, {}), by_row.get(untrained(name), {})
    if not own or not baseline:
        return f"{_cell(own)} | - | -"
    gain = statistics.mean(own.values()) - statistics.mean(baseline.values())
    beyond = min(own.values()) > max(baseline.values())
    return f"{_cell(own)} | {gain:+.1f} | {'yes' if beyond else 'no'}"


def _cell(by_seed: dict[int, float]) -> str:
    values = by_seed.values()
    if not values:
        return "-"
    return f"{statistics.mean(values):.1f} ± {(max(values) - min(values)) / 2:.1f}"


def define_flags(methods: list[str]) -> None:
    """Defines the flags that all runs share. `methods` is the default of `--methods`."""
    flags.DEFINE_string("data_dir", None, "Folder where tensorflow-datasets prepared cifar10.")
    flags.DEFINE_string("workdir", "runs/zoo", "Folder of the runs.")
    flags.DEFINE_list("methods", methods, "Names of configs.")
    flags.DEFINE_integer("jobs", 1, "Runs at a time.", lower_bound=1)
    flags.DEFINE_integer("size", 16, "Width and height of a full-size view in pixels.")
    flags.DEFINE_integer("images", 10000, "Training images, at most 50,000; also train probes.")
    flags.mark_flag_as_required("data_dir")


if __name__ == "__main__":
    define_flags(all_methods())
    flags.DEFINE_integer("seeds", 3, "Seeds per method.", lower_bound=1)
    flags.DEFINE_integer("steps", 0, "Steps of 128 images for every method; 0: each its own.")
    app.run(main)
