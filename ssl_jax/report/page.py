"""Page of a run: one HTML file that embeds its pictures and needs no network and no script."""

import math
import os
import pathlib
import shlex
from collections.abc import Callable

import numpy as np

from ssl_jax.jobs import files
from ssl_jax.jobs.countdown import track
from ssl_jax.jobs.json_files import is_number
from ssl_jax.report import evaluation_sections, figure_sections, html_elements, word_sections
from ssl_jax.report.display_names import run_title
from ssl_jax.report.figures import training_curves
from ssl_jax.report.formatting import duration, flatten
from ssl_jax.report.html_elements import (
    code,
    document,
    fact_boxes,
    figure,
    header,
    note,
    placeholder,
    section,
    settings_table,
)  # fmt: skip
from ssl_jax.report.run_files import Run, metric_series, read_run
from ssl_jax.rundir import collapse

# Metrics of a method's own task, and their names in the report.
PRETEXT = {
    "pretext_accuracy": "accuracy of the task",
    "pretext_error": "error of the task",
    "reconstruction_error": "reconstruction error",
}


def write(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes figures/*.png and report.html into a run's workdir; returns the page's path.

    A sentence replaces each part that the run has not produced yet.

    Raises:
      Fault: if the folder holds no run, its config.json is damaged, `figures` is a link out of the
        folder, or the page cannot be written.
    """
    run = read_run(workdir)
    files.inside(run.workdir, "figures")
    path = run.workdir / "report.html"
    try:
        parts = track(SECTIONS, len(SECTIONS), "report: {} sections")
        body = "\n".join(part(run) for part in parts)
        files.write(path, document(run_title(run), body))
    except OSError as error:
        raise files.write_fault(f"{path}: cannot write the report", error) from error
    return path


def _header(run: Run) -> str:
    model, train = run.config.get("model", {}), run.config.get("train", {})
    facts = [str(model["name"])] if "name" in model else []
    if is_number(model.get("width")) and model["width"] != 1:
        facts[-1:] = [f"{facts[-1]}, width {model['width']:g}"] if facts else []
    if run.pretrained:  # the config's training fields do not describe imported weights
        return header(run_title(run), facts)
    facts += [f"batch {run.batch_size:,}"] if run.batch_size else []
    if run.metrics:
        facts.append(f"{run.metrics[-1]['step']:,} steps")
        if epoch := run.metrics[-1].get("epoch"):
            facts.append(f"{epoch:.3g} epochs")
    facts += [f"seed {train['seed']}"] if "seed" in train else []
    return header(run_title(run), facts)


def _training(run: Run) -> str:
    path = run.workdir / "figures" / "curves.png"
    if run.pretrained:
        sentence = "Not available: these weights were imported (--pretrained)."
        return section("Training", placeholder(sentence))
    if not training_curves.draw(run, training_curves.TRAINING, path):
        return section("Training", placeholder("No step has been logged yet (metrics.jsonl)."))
    smoothed = len(run.metrics) > training_curves.SMOOTH_FROM
    caption = "Thin: as logged; thick: running mean. " if smoothed else ""
    levels = training_curves.chance_levels(run)
    if chance := levels.get("contrastive_accuracy"):
        caption += f"Chance: the positive is guessed among {1 / chance:,.0f} candidates"
        loss = levels.get("loss")
        factor = training_curves.loss_scale(run)
        text = f"{factor:g} ln" if factor != 1 else "ln"
        if loss:
            caption += f", a loss of {text} {math.exp(loss / factor):,.0f} = {loss:.2f}. "
        else:
            caption += ". "
    elif levels:
        caption += "Chance: the best guess that ignores the input, the most frequent class or the "
        caption += "mean. "
    if len(metric_series(run, "loss")[0]):
        caption += training_curves.LOSS_NOTES.get(run.method, "")
    if len(metric_series(run, "probe_accuracy")[0]):
        caption += f"The online probe trains beside the encoder on augmented training {run.noun}s, "
        caption += "behind a stop-gradient. Compare its accuracy only with itself."
    content = _facts(run) + _early_stop(run)
    content += figure(path.read_bytes(), "Curves of the training", caption)
    return section("Training", content + _collapse_signals(run))


def _early_stop(run: Run) -> str:
    early = run.metadata.get("stopped_early")
    reason = str(early.get("reason", "")) if isinstance(early, dict) else ""
    return note(f"The run {reason}.") if reason else ""


def _collapse_signals(run: Run) -> str:
    path = run.workdir / "figures" / "health.png"
    if not training_curves.draw(run, training_curves.COLLAPSE, path):
        return ""
    panels = training_curves.logged_panels(run, training_curves.COLLAPSE)
    notes = " ".join(panel.note for panel in panels)
    caption = f"Unit-length features of the training {run.noun}s as the method sees them, up to "
    caption += f"256 per step. {notes}"
    answer = f"<h3>Do the features collapse?</h3>{_collapse_answer(run)}"
    return answer + figure(path.read_bytes(), "Spread of the features over the training", caption)


def _collapse_answer(run: Run) -> str:
    rank = dict(zip(*metric_series(run, "effective_rank"), strict=True))
    rows = [
        {"step": step, "feature_std": value, "effective_rank": rank.get(step, np.inf)}
        for step, value in zip(*metric_series(run, "feature_std"), strict=True)
    ]
    return note(collapse.describe(rows)) if rows else ""


def _facts(run: Run) -> str:
    facts = []
    loss, rate = metric_series(run, "loss")[1], metric_series(run, "images_per_second")[1]
    if len(loss):
        facts.append((f"{loss[-1]:.3f}", "last loss"))
    facts += _pretext_facts(run)
    if len(rate):
        facts.append((f"{np.median(rate):,.0f}", f"{run.noun}s / s, median"))
        if run.batch_size:
            seconds = run.metrics[-1]["step"] * run.batch_size / np.median(rate)
            facts.append((duration(seconds), "training, at that rate"))
    if device := run.metadata.get("device"):
        facts.append((f"{run.metadata.get('devices', 1)} × {device}", "device"))
    return fact_boxes(facts)


def _pretext_facts(run: Run) -> list[tuple[str, str]]:
    """Returns the last accuracy or error of the method's own task beside that of a guess."""
    facts = []
    levels = training_curves.chance_levels(run)
    for key, words in PRETEXT.items():
        values = metric_series(run, key)[1]
        if len(values) and key in levels:
            scale, unit = (100, " %") if key.endswith("accuracy") else (1, "")
            value, guess = (f"{scale * x:.3g}{unit}" for x in (values[-1], levels[key]))
            facts.append((value, f"{words}; chance {guess}"))
    return facts


def _usage(run: Run) -> str:
    heading = "Use these weights"
    # Only the name: a published page must not show folders of this machine.
    workdir = pathlib.Path(str(run.pretrained.get("path") or run.workdir.absolute())).name
    if not run.pretrained and not (run.workdir / "checkpoints").is_dir():
        return section(heading, placeholder("No checkpoint in the workdir (checkpoints/)."))
    if run.has_words:
        command = f"ssl-jax export --workdir={shlex.quote(workdir)} --format=word2vec"
        return section(heading, note("As files for gensim, spaCy and others:") + code(command))
    lines = (
        f"import ssl_jax\n\nbackbone = ssl_jax.load_backbone({workdir!r})\n"
        "features = backbone(images)  # [n, h, w, 3], uint8 or in [0, 1], to [n, f]"
    )
    command = f"ssl-jax export --workdir={shlex.quote(workdir)} --format=torch"
    return section(
        heading,
        note(
            f"In the folder that holds {workdir}, load the frozen encoder of its latest checkpoint "
            "in Python:"
        )
        + code(lines)
        + note("As files for timm, torchvision, PyTorch, ONNX and others (--help lists them):")
        + code(command),
    )


def _reproduce(run: Run) -> str:
    command = run.metadata.get("command")
    if isinstance(command, list):
        command = " ".join(map(str, command))
    content = html_elements.command(str(command)) if command else ""
    rest = {key: value for key, value in run.metadata.items() if key != "command"}
    if not run.metadata:
        content = placeholder("No metadata.json in the workdir.")
    return section("Reproduce", content + (settings_table(flatten(rest)) if rest else ""))


def _config(run: Run) -> str:
    if not run.config:
        return section("Configuration", placeholder("No config.json in the workdir."))
    plain = {k: v for k, v in run.config.items() if not isinstance(v, dict)}
    groups = {k: v for k, v in run.config.items() if isinstance(v, dict)}
    tables = [settings_table(flatten(v), caption=k) for k, v in sorted(groups.items())]
    tables += [settings_table(plain)] if plain else []
    return section("Configuration", f'<div class="columns">{"".join(tables)}</div>')


SECTIONS: tuple[Callable[[Run], str], ...] = (
    _header,
    evaluation_sections.evaluation_sections,
    _training,
    word_sections.word_section,
    figure_sections.views_section,
    figure_sections.feature_map_section,
    figure_sections.neighbours_section,
    figure_sections.confusion_section,
    figure_sections.saliency_section,
    figure_sections.method_sections,
    _usage,
    evaluation_sections.protocol_section,
    _reproduce,
    _config,
)
