"""Speakers and digits from features of sound, by the public commands.

    python -m benchmarks.audio --data_dir=spoken_digit --workdir=runs/audio --seeds=3

Trains `configs/cpc_audio.py:spoken_digit` and the same variant of the methods in `--others`, and
evaluates them beside the untrained encoder, MFCC and log-mel by digit and by speaker: single frames
and pooled features. Also fine-tunes the untrained encoder on all labels ("supervised"), and
evaluates the frozen result. With `--held_out`, the classifiers of digits train on all speakers but
one and are tested on that one; the encoder heard every speaker, but no label. Completed commands
are not repeated. Prints accuracies in per cent, mean and half the range over seeds, and the rate of
the input pipeline.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable

from absl import app, flags

FLAGS = flags.FLAGS
LABELS = ("digit", "speaker")
EVALUATIONS = ("frames", "linear", "linear_10", "knn")
HEADINGS = ("single frames", "pooled, linear", "10 labels/class", "20-NN")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
NAMES = {"cpc_audio": "CPC", "simclr": "SimCLR", "byol": "BYOL", "barlow_twins": "Barlow Twins"}
BASELINES = ("untrained encoder", "MFCC", "log-mel")
Accuracies = dict[str, list[float]]  # row -> one accuracy per seed


def main(argv: list[str]) -> None:
    """Runs the benchmark; see the module's docstring."""
    del argv
    methods = ["cpc_audio", *FLAGS.others]
    for seed in range(FLAGS.seeds):
        for method in methods:
            train(method, seed)
    if FLAGS.supervised:
        train("cpc_audio", 0, untrained=True)
        for label in LABELS:
            supervise(label)
    for label in LABELS:
        print(table(label, methods))
    if FLAGS.held_out:
        print(held_out())
    print(pipeline_rate())


def train(method: str, seed: int, *, untrained: bool = False) -> None:
    """Trains a method, or stores its untrained encoder, and evaluates both labels."""
    folder = _folder("untrained" if untrained else f"{method}{seed}")
    fields = [f"--config.train.seed={seed}"]
    if untrained:  # a step at rate 0 changes no weight
        fields += ["--config.train.steps=1", "--config.optim.lr=0.0", "--config.eval.protocols=()"]
    config = f"--config=configs/{method}.py:spoken_digit"
    run(folder, "checkpoints" if untrained else "eval/.done", "train", config, *fields, _data())
    if not untrained:
        run(folder, "eval/label_speaker_frames.json", "evaluate", "--data.label=speaker")


def supervise(label: str) -> None:
    """Trains the untrained encoder with all labels, and evaluates its frozen features."""
    tuned, frozen = _folder(f"supervised_{label}"), _folder(f"supervised_{label}_frozen")
    fields = {
        "data.label": label, "optim.name": "adamw", "optim.lr": 1e-3, "optim.lr_rule": "constant",
        "train.batch_size": 64, "train.steps": FLAGS.supervised_steps,
    }  # fmt: skip
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    start = f"--pretrained={_folder('untrained')}"
    run(tuned, "eval/finetune.json", "finetune", start, *overrides)
    protocols = "--eval.protocols=('frames','linear','knn')"
    other = [f"--pretrained={tuned}", "--eval.baselines=False", protocols]
    run(frozen, "eval/knn.json", "evaluate", *other)


def run(folder: pathlib.Path, result: str, verb: str, *arguments: str) -> None:
    """Runs a command of ssl_jax in a workdir, unless the workdir has the result."""
    if (folder / result).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", f"ssl_jax.{verb}", f"--workdir={folder}", *arguments]
    with (folder / "log.txt").open("a") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
    done = (folder / result).exists()
    print(f"{verb} {folder.name}: {'done' if done else f'exit {code}, see {log.name}'}", flush=True)


def table(label: str, methods: Iterable[str]) -> str:
    """Returns the table of one label."""
    columns: list[Accuracies] = []
    for evaluation in EVALUATIONS:
        prefix = "" if label == "digit" else f"label_{label}_"
        column: Accuracies = {}
        for method in methods:
            for seed in range(FLAGS.seeds):
                results = _results(_folder(f"{method}{seed}"), prefix + evaluation)
                wanted = {NAMES[method]: method}
                if method == "cpc_audio":
                    wanted |= {name: name for name in BASELINES}
                for row, name in wanted.items():
                    if name in results:
                        column.setdefault(row, []).append(results[name]["accuracy"])
        supervised = _results(_folder(f"supervised_{label}_frozen"), evaluation).get("cpc_audio")
        if supervised:
            column["supervised"] = [supervised["accuracy"]]
        columns.append(column)
    rows = [*(NAMES[method] for method in methods), *BASELINES, "supervised"]
    lines = [f"| {label} | " + " | ".join(HEADINGS) + " |", "|---" * (len(HEADINGS) + 1) + "|"]
    for row in rows:
        cells = [_cell(column.get(row, [])) for column in columns]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def held_out() -> str:
    """Returns the table of digits of speakers that no classifier was trained on."""
    rows: dict[str, Accuracies] = {}
    for speaker in FLAGS.held_out:
        folder = _folder(f"without_{speaker}")
        split = [f"--data.split=take>=5&speaker!={speaker}", f"--data.eval_split=speaker={speaker}"]
        protocols = '--eval.protocols=("frames","linear","knn")'
        own = f"--pretrained={_folder('cpc_audio0')}"
        run(folder, "eval/knn.json", "evaluate", own, *split, protocols)
        for evaluation in ("frames", "linear", "knn"):
            for name, numbers in _results(folder, evaluation).items():
                row = rows.setdefault(NAMES.get(name, name), {})
                row.setdefault(evaluation, []).append(numbers["accuracy"])
    lines = [
        "| digits of held-out speakers | " + " | ".join([HEADINGS[0], HEADINGS[1], HEADINGS[3]])
    ]
    lines = [lines[0] + " |", "|---|---|---|---|"]
    for name, row in rows.items():
        cells = [f"{100 * statistics.mean(row[e]):.1f}" for e in ("frames", "linear", "knn")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def pipeline_rate() -> str:
    """Measures the input pipeline of the pairs of views, which have every random change."""
    from configs import simclr
    from ssl_jax import components

    config = simclr.get_config("spoken_digit")
    config.data.dir = str(pathlib.Path(FLAGS.data_dir).expanduser())
    source = components.open_source(config, config.data.split)
    batches = components.train_batches(config, source, start_step=0, num_steps=33)
    next(batches)
    wall, cpu = time.perf_counter(), time.process_time()
    count = sum(len(batch["index"]) for batch in batches)
    cost = (time.process_time() - cpu) / count
    rate = count / (time.perf_counter() - wall)
    return (
        f"pipeline: {1 / cost:,.0f} recordings per CPU second (2 views of {config.augment.window} "
        f"samples), {rate:,.0f} per second on {os.cpu_count()} cores"
    )


def _folder(name: str) -> pathlib.Path:
    return pathlib.Path(FLAGS.workdir).expanduser().absolute() / name


def _data() -> str:
    return f"--config.data.dir={pathlib.Path(FLAGS.data_dir).expanduser().absolute()}"


def _results(folder: pathlib.Path, evaluation: str) -> dict:
    path = folder / "eval" / f"{evaluation}.json"
    return json.loads(path.read_text())["results"] if path.exists() else {}


def _cell(values: list[float]) -> str:
    if not values:
        return "–"
    mean, half = statistics.mean(values), (max(values) - min(values)) / 2
    return f"{100 * mean:.1f}" + (f" ± {100 * half:.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Folder of the Free Spoken Digit Dataset.", required=True)
    flags.DEFINE_string("workdir", "runs/audio", "Folder of the runs.")
    flags.DEFINE_integer("seeds", 1, "Seeds of every method.")
    flags.DEFINE_list("others", ["simclr", "byol", "barlow_twins"], "Methods beside CPC.")
    flags.DEFINE_bool("supervised", True, "Also train the encoder with labels.")
    flags.DEFINE_integer("supervised_steps", 600, "Steps of the supervised training.")
    flags.DEFINE_list("held_out", SPEAKERS, "Speakers to hold out, one at a time.")
    app.run(main)
