"""The page of a run: one HTML file that carries its pictures and needs no network and no script."""

import os
import pathlib
import shlex
from collections.abc import Callable

import numpy as np

from ssl_jax.errors import CANNOT_CREATE, Fault
from ssl_jax.report import curves, pictures, tables
from ssl_jax.report.evaluation import METHODS, title
from ssl_jax.report.files import Run, read, series
from ssl_jax.report.markup import (
    absent,
    boxes,
    code,
    document,
    figure,
    flat,
    header,
    note,
    section,
    settings,
)  # fmt: skip

__all__ = ["METHODS", "duration", "write"]


def write(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes workdir/figures/*.png and workdir/report.html; returns the page's path.

    What the run has not produced yet is left out with a sentence in its place.

    Raises:
      Fault: there is no run, a file of it is damaged, or the page cannot be written.
    """
    run = read(workdir)
    path = run.workdir / "report.html"
    try:
        body = "\n".join(part(run) for part in SECTIONS)
        path.write_text(document(title(run), body), encoding="utf-8")
    except OSError as error:
        raise Fault(f"{path}: cannot write the report ({error})", CANNOT_CREATE) from error
    return path


def _header(run: Run) -> str:
    model, train = run.config.get("model", {}), run.config.get("train", {})
    facts = [str(model["name"])] if "name" in model else []
    if model.get("width", 1) != 1:
        facts[-1:] = [f"{facts[-1]}, width {model['width']:g}"] if facts else []
    if run.pretrained:  # its config's training is nobody's
        return header(title(run), facts)
    facts += [f"batch {run.batch_size:,}"] if run.batch_size else []
    if run.metrics:
        facts.append(f"{run.metrics[-1]['step']:,} steps")
        if epoch := run.metrics[-1].get("epoch"):
            facts.append(f"{epoch:.3g} epochs")
    facts += [f"seed {train['seed']}"] if "seed" in train else []
    return header(title(run), facts)


def _training(run: Run) -> str:
    path = run.workdir / "figures" / "curves.png"
    if run.pretrained:
        return section("Training", absent("Not here: these weights were given (--pretrained)."))
    if not curves.draw(run, curves.CURVES, path):
        return section("Training", absent("No step has been logged yet (metrics.jsonl)."))
    many = len(run.metrics) > curves.SMOOTH_FROM
    caption = "Thin: as logged; thick: running mean. " if many else ""
    if level := curves.chance(run, "contrastive_accuracy"):
        caption += f"Chance: the positive guessed among {1 / level:,.0f} candidates"
        loss = curves.chance(run, "loss")
        caption += f", a loss of ln {1 / level:,.0f} = {loss:.2f}. " if loss else ". "
    if len(series(run, "probe_accuracy")[0]):
        caption += "The online probe trains beside the encoder, on augmented train images behind a "
        caption += "stop-gradient: compare it with itself only."
    content = _facts(run) + figure(path.read_bytes(), "Curves of the training", caption)
    return section("Training", content + _health(run))


def _health(run: Run) -> str:
    path = run.workdir / "figures" / "health.png"
    if not curves.draw(run, curves.HEALTH, path):
        return ""
    notes = " ".join(panel.note for panel in curves.shown(run, curves.HEALTH))
    caption = "Features of the images as trained on, at unit length, up to 256 a step. " + notes
    heading = "<h3>Do the features collapse?</h3>"
    return heading + figure(path.read_bytes(), "Spread of the features over the training", caption)


def _facts(run: Run) -> str:
    shown = []
    loss, rate = series(run, "loss")[1], series(run, "images_per_second")[1]
    if len(loss):
        shown.append((f"{loss[-1]:.3f}", "last loss"))
    if len(rate):
        shown.append((f"{np.median(rate):,.0f}", "images / s, median"))
        if run.batch_size:
            seconds = run.metrics[-1]["step"] * run.batch_size / np.median(rate)
            shown.append((duration(seconds), "training, at that rate"))
    if device := run.metadata.get("device"):
        shown.append((f"{run.metadata.get('devices', 1)} × {device}", "device"))
    return boxes(shown)


def duration(seconds: float) -> str:
    """ "1 h 05 min"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _use(run: Run) -> str:
    heading = "Use these weights"
    workdir = str(run.pretrained.get("path") or os.path.abspath(run.workdir))
    if not run.pretrained and not (run.workdir / "checkpoints").is_dir():
        return section(heading, absent("No checkpoint in the workdir (checkpoints/)."))
    lines = (
        f"import ssl_jax\n\nbackbone = ssl_jax.load_backbone({workdir!r})\n"
        "features = backbone(images)  # [n, h, w, 3], uint8 or in [0, 1], to [n, f]"
    )
    command = f"python -m ssl_jax.export --workdir={shlex.quote(workdir)} --format=torch"
    return section(
        heading,
        note("In Python, the frozen encoder of the newest checkpoint:")
        + code(lines)
        + note("As files for timm, torchvision, PyTorch, ONNX and others (--help lists them):")
        + code(command),
    )


def _reproduce(run: Run) -> str:
    command = run.metadata.get("command")
    if isinstance(command, list):
        command = " ".join(map(str, command))
    content = code(str(command)) if command else ""
    rest = {key: value for key, value in run.metadata.items() if key != "command"}
    if not run.metadata:
        content = absent("No metadata.json in the workdir.")
    return section("Reproduce", content + (settings(flat(rest)) if rest else ""))


def _config(run: Run) -> str:
    if not run.config:
        return section("Configuration", absent("No config.json in the workdir."))
    plain = {k: v for k, v in run.config.items() if not isinstance(v, dict)}
    groups = {k: v for k, v in run.config.items() if isinstance(v, dict)}
    tables = [settings(flat(v), caption=k) for k, v in sorted(groups.items())]
    tables += [settings(plain)] if plain else []
    return section("Configuration", f'<div class="columns">{"".join(tables)}</div>')


SECTIONS: tuple[Callable[[Run], str], ...] = (
    _header,
    tables.evaluations,
    _training,
    pictures.views,
    pictures.feature_map,
    pictures.neighbours,
    pictures.confused,
    pictures.occluded,
    pictures.generated,
    _use,
    tables.protocols,
    _reproduce,
    _config,
)
