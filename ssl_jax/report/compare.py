"""The page that sets runs side by side: one HTML file with its pictures, as the page of a run."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from ssl_jax.errors import CANNOT_CREATE, USAGE, Fault
from ssl_jax.report import evaluation, groups, overlay
from ssl_jax.report.curves import SMOOTH_FROM
from ssl_jax.report.evaluation import BASELINES, Numbers
from ssl_jax.report.files import read, series
from ssl_jax.report.groups import Column, Group, Mean
from ssl_jax.report.markup import (
    ESCAPE,
    absent,
    document,
    figure,
    grid,
    header,
    note,
    plain_row,
    section,
)  # fmt: skip
from ssl_jax.report.tables import cell


def write(workdirs: Sequence[str], out: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the comparison of two or more runs to `out`; returns its path.

    Raises:
      Fault: fewer than two runs, one twice, one that is none, or the page cannot be written.
    """
    paths = [pathlib.Path(workdir).expanduser().resolve() for workdir in workdirs]
    if len(paths) < 2:
        raise Fault("--workdirs: a comparison needs two runs or more: --workdirs=a,b", USAGE)
    if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise Fault(f"--workdirs: named twice: {', '.join(twice)}; name each run once", USAGE)
    compared = groups.group([read(path) for path in paths])
    out = pathlib.Path(out).expanduser()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(document("Comparison of runs", _body(compared)), encoding="utf-8")
    except OSError as error:
        raise Fault(f"{out}: cannot write the comparison ({error})", CANNOT_CREATE) from error
    return out


def _body(compared: Sequence[Group]) -> str:
    count = sum(len(one.runs) for one in compared)
    facts = [f"{count} runs", f"{len(compared)} settings", "grouped over seeds"]
    return "\n".join(
        [
            header("Comparison of runs", facts if len(compared) < count else facts[:1]),
            _evaluations(compared),
            _curves(compared),
            _runs(compared),
            _configs(compared),
            _protocols(compared),
        ]
    )


def _evaluations(compared: Sequence[Group]) -> str:
    tables = groups.columns(compared)
    if not tables:
        return section("Evaluation", absent("None of the runs is evaluated (eval/*.json)."))
    sections = []
    for data, columns in tables.items():
        rows = _own_rows(compared, columns) + _baseline_rows(compared, columns)
        content = note(_explained(compared)) + grid(
            ["Features", *(column.heading for column in columns)], rows
        )
        sections.append(section(f"Evaluation on {data}" if data else "Evaluation", content))
    return "\n".join(sections)


def _explained(compared: Sequence[Group]) -> str:
    sentence = "Top-1 accuracy in per cent. "
    if any(len(one.runs) > 1 for one in compared):
        sentence += "Mean over seeds; ±: half-width of its 95 % t-interval. "
    if any(len(one.runs) == 1 for one in compared):
        sentence += "Without ±: one seed, which does not say how another would come out. "
    return sentence + (
        "Best is what lies above all others with intervals that do not overlap, under one "
        "protocol; where nothing is marked, nothing is told apart."
    )


def _own_rows(compared: Sequence[Group], columns: Sequence[Column]) -> list[str]:
    means = [column.means(compared) for column in columns]
    tops = [
        None if groups.protocol_differences(column) else groups.best(of)
        for column, of in zip(columns, means, strict=True)
    ]
    rows = []
    for i, one in enumerate(compared):
        if any(of[i] for of in means):
            cells = [_cell(of[i], best=top == i) for of, top in zip(means, tops, strict=True)]
            rows.append(f"<tr><th>{_named(i, one)}</th>{''.join(cells)}</tr>")
    return rows


def _baseline_rows(compared: Sequence[Group], columns: Sequence[Column]) -> list[str]:
    rows = []
    for name in BASELINES:
        means = [column.means(compared, name) for column in columns]
        found: list[tuple[list[Mean | None], list[str]]] = []  # values, and groups that have them
        for i, one in enumerate(compared):
            mine = [of[i] for of in means]
            same = next((f for f in found if all(map(_agree, f[0], mine))), None)
            if same:
                same[0][:] = [a or b for a, b in zip(same[0], mine, strict=True)]
                same[1].append(one.name)
            elif any(mine):
                found.append((mine, [one.name]))
        for values, names in found:
            of = f'<div class="of">of {ESCAPE(", ".join(names))}</div>' if len(found) > 1 else ""
            cells = "".join(map(_cell, values))
            rows.append(f'<tr class="baseline"><th>{ESCAPE(name)}{of}</th>{cells}</tr>')
    return rows


def _agree(a: Mean | None, b: Mean | None) -> bool:
    return a is None or b is None or _cell(a) == _cell(b)


def _cell(mean: Mean | None, *, best: bool = False) -> str:
    return cell(Numbers(mean.value, mean.half, "ci95") if mean else None, best=best)


def _named(index: int, one: Group) -> str:
    """A group's name beside its colour."""
    return f'<i class="key" style="background:{overlay.style(index)[0]}"></i>{ESCAPE(one.name)}'


def _curves(compared: Sequence[Group]) -> str:
    figures = []
    steps = overlay.draw(compared, by="step")
    if not steps:
        return section("Training", absent("None of the runs has logged a step (metrics.jsonl)."))
    figures.append(figure(steps, "Curves over steps", _caption(compared)))
    sizes = {run.batch_size for one in compared for run in one.runs}
    if len(sizes) > 1 and 0 not in sizes:
        caption = "The same over images seen, steps times batch, since batches differ."
        pictured = figure(overlay.draw(compared, by="images"), "Curves over images", caption)
        figures.append(f'<div class="below">{pictured}</div>')
    return section("Training", "\n".join(figures))


def _caption(compared: Sequence[Group]) -> str:
    runs = [run for one in compared for run in one.runs]
    caption = ""
    if any(len(one.runs) > 1 for one in compared):
        caption += "Thin: one seed; thick: their mean. "
    if any(len(run.metrics) > SMOOTH_FROM for run in runs):
        caption += "Running means. "
    if any(len(series(run, "probe_accuracy")[0]) for run in runs):
        caption += "The online probe is measured on augmented train images while the encoder "
        caption += "moves: it shows progress, the evaluations above compare. "
    if len({evaluation.method(run) for run in runs}) > 1:
        caption += "Losses of different methods are different quantities: each has its own plot."
    return caption


def _runs(compared: Sequence[Group]) -> str:
    head = ["Run", "Seeds", "Steps", "Batch", "Images seen", "Images / s", "Device", "Folder"]
    rows = []
    for i, one in enumerate(compared):
        cells = "".join(f"<td>{ESCAPE(text)}</td>" for text in _facts(one))
        rows.append(f"<tr><th>{_named(i, one)}</th>{cells}</tr>")
    sentence = "Images / s: median over the training, of whatever else the machine did meanwhile."
    return section("Runs", note(sentence) + grid(head, rows, kind="plain"))


def _facts(one: Group) -> list[str]:
    """Cells of a group, each value once."""
    columns: list[list[str]] = [[] for _ in range(7)]
    for run in one.runs:
        step = int(run.metrics[-1]["step"]) if run.metrics else 0
        rate = series(run, "images_per_second")[1]
        device = run.metadata.get("device", "")
        facts = [
            "" if groups.seed(run) is None else str(groups.seed(run)),
            f"{step:,}" if step else "",
            f"{run.batch_size:,}" if run.batch_size else "",
            f"{step * run.batch_size:,}" if step * run.batch_size else "",
            f"{np.median(rate):,.0f}" if len(rate) else "",
            f"{run.metadata.get('devices', 1)} × {device}" if device else "",
            run.workdir.name,
        ]
        for column, fact in zip(columns, facts, strict=True):
            column.append(fact)
    return [", ".join(dict.fromkeys(filter(None, c))) or "–" for c in columns]


def _configs(compared: Sequence[Group]) -> str:
    fields = groups.config_differences(compared)
    if not fields:
        return section("Differences of the configs", absent("None but the seed."))
    rows = [plain_row(field, values) for field, values in fields.items()]
    head = ["Field", *(one.name for one in compared)]
    return section("Differences of the configs", grid(head, rows, kind="plain fields"))


def _protocols(compared: Sequence[Group]) -> str:
    content = ""
    for data, columns in groups.columns(compared).items():
        for column in columns:
            if fields := groups.protocol_differences(column):
                rows = [plain_row(field, values) for field, values in fields.items()]
                content += f"<h3>{ESCAPE(f'{column.heading}, {data}' if data else column.heading)}"
                content += "</h3>" + grid(
                    ["Field", *(one.name for one in compared)], rows, kind="plain fields"
                )
    if not content:
        return ""
    sentence = "Numbers of one column that were not made in one way: compare them with care."
    return section("Differences of the protocols", note(sentence) + content)
