"""Comparison page of several runs: one HTML file that embeds its pictures."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from ssl_jax.errors import USAGE, Fault
from ssl_jax.jobs import files
from ssl_jax.report import display_names, seed_groups
from ssl_jax.report.accuracies import Accuracy
from ssl_jax.report.evaluation_sections import accuracy_cell
from ssl_jax.report.evaluations import baselines_in
from ssl_jax.report.figures import comparison_curves
from ssl_jax.report.figures.training_curves import SMOOTH_FROM
from ssl_jax.report.html_elements import (
    document,
    escape,
    figure,
    header,
    note,
    placeholder,
    section,
    table,
    text_row,
)  # fmt: skip
from ssl_jax.report.run_files import metric_series, read_run
from ssl_jax.report.seed_groups import Column, Group, Mean


def write(workdirs: Sequence[str], out: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the comparison of two or more runs to `out`; returns its path.

    Raises:
      Fault: if there are fewer than two runs, a run is named twice, a folder holds no run, or the
        page cannot be written.
    """
    paths = [pathlib.Path(workdir).expanduser().resolve() for workdir in workdirs]
    if len(paths) < 2:
        raise Fault("--workdirs: a comparison needs two runs or more: --workdirs=a,b", USAGE)
    if repeated := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise Fault(f"--workdirs: named twice: {', '.join(repeated)}; name each run once", USAGE)
    groups = seed_groups.ranked(seed_groups.group([read_run(path) for path in paths]))
    out = pathlib.Path(out).expanduser()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write(out, document("Comparison of runs", _body(groups)))
    except OSError as error:
        raise files.write_fault(f"{out}: cannot write the comparison", error) from error
    return out


def _body(groups: Sequence[Group]) -> str:
    count = sum(len(group.runs) for group in groups)
    facts = [f"{count} runs", f"{len(groups)} settings", "grouped over seeds"]
    return "\n".join(
        [
            header("Comparison of runs", facts if len(groups) < count else facts[:1]),
            _evaluations(groups),
            _curves(groups),
            _runs(groups),
            _configs(groups),
            _protocols(groups),
        ]
    )


def _evaluations(groups: Sequence[Group]) -> str:
    tables = seed_groups.columns(groups)
    if not tables:
        return section("Evaluation", placeholder("None of the runs is evaluated (eval/*.json)."))
    sections = []
    for data, columns in tables.items():
        rows = _own_rows(groups, columns) + _baseline_rows(groups, columns)
        content = note(_evaluation_note(groups)) + table(
            ["Features", *(column.heading for column in columns)], rows
        )
        sections.append(section(f"Evaluation on {data}" if data else "Evaluation", content))
    return "\n".join(sections)


def _evaluation_note(groups: Sequence[Group]) -> str:
    sentence = "Top-1 accuracy in per cent. "
    if any(len(group.runs) > 1 for group in groups):
        sentence += "Mean over seeds; ±: half-width of its 95 % t-interval. "
    if any(len(group.runs) == 1 for group in groups):
        sentence += "Without ±: one seed, which does not show how other seeds vary. "
    return sentence + (
        "“Best” marks an accuracy whose interval lies above all others, if all follow one "
        "protocol. A column without a mark has no clear best."
    )


def _own_rows(groups: Sequence[Group], columns: Sequence[Column]) -> list[str]:
    """Returns a row for each group with the accuracies of its own features."""
    column_means = [column.means(groups) for column in columns]
    best = [
        None if seed_groups.protocol_differences(column) else seed_groups.best(means)
        for column, means in zip(columns, column_means, strict=True)
    ]
    rows = []
    for i, group in enumerate(groups):
        if any(means[i] for means in column_means):
            cells = [
                _mean_cell(means[i], best=top == i)
                for means, top in zip(column_means, best, strict=True)
            ]
            rows.append(f"<tr><th>{_colored_name(i, group)}</th>{''.join(cells)}</tr>")
    return rows


def _baseline_rows(groups: Sequence[Group], columns: Sequence[Column]) -> list[str]:
    """Returns the rows of the baselines; groups whose values agree share one row."""
    rows = []
    evals = [e for column in columns for group in column.evaluations for e in group if e]
    for name in baselines_in(evals):
        column_means = [column.means(groups, name) for column in columns]
        shared: list[tuple[list[Mean | None], list[str]]] = []  # values, names of their groups
        for i, group in enumerate(groups):
            values = [means[i] for means in column_means]
            match = next((row for row in shared if _agree(row[0], values)), None)
            if match:
                match[0][:] = [a or b for a, b in zip(match[0], values, strict=True)]
                match[1].append(group.name)
            elif any(values):
                shared.append((values, [group.name]))
        for values, names in shared:
            suffix = ""
            if len(shared) > 1:
                suffix = f'<div class="of">of {escape(", ".join(names))}</div>'
            cells = "".join(map(_mean_cell, values))
            rows.append(f'<tr class="baseline"><th>{escape(name)}{suffix}</th>{cells}</tr>')
    return rows


def _agree(first: Sequence[Mean | None], second: Sequence[Mean | None]) -> bool:
    """Returns True if the rows share a column, and all shared columns show the same text."""
    equal = [_mean_cell(a) == _mean_cell(b) for a, b in zip(first, second, strict=True) if a and b]
    return bool(equal) and all(equal)


def _mean_cell(mean: Mean | None, *, best: bool = False) -> str:
    return accuracy_cell(Accuracy(mean.value, mean.half, "ci95") if mean else None, best=best)


def _colored_name(index: int, group: Group) -> str:
    """Returns a group's name beside the colour of its curves."""
    color = comparison_curves.line_style(index)[0]
    return f'<i class="key" style="background:{color}"></i>{escape(group.name)}'


def _curves(groups: Sequence[Group]) -> str:
    figures = []
    by_step = comparison_curves.draw(groups, by="step")
    if not by_step:
        sentence = "None of the runs has logged a step (metrics.jsonl)."
        return section("Training", placeholder(sentence))
    figures.append(figure(by_step, "Curves over steps", _caption(groups)))
    sizes = {run.batch_size for group in groups for run in group.runs if run.metrics}
    if len(sizes) > 1 and 0 not in sizes:
        caption = "The same curves over images seen (steps times batch), because the batches "
        caption += "differ. A contrastive loss is higher in a bigger batch, which has more "
        caption += "candidates."
        picture = comparison_curves.draw(groups, by="images")
        by_images = figure(picture, "Curves over images", caption)
        figures.append(f'<div class="below">{by_images}</div>')
    return section("Training", "\n".join(figures))


def _caption(groups: Sequence[Group]) -> str:
    runs = [run for group in groups for run in group.runs]
    caption = ""
    if any(len(group.runs) > 1 for group in groups):
        caption += "Thin: one seed; thick: their mean. "
    if any(len(run.metrics) > SMOOTH_FROM for run in runs):
        caption += "Running means. "
    if any(len(metric_series(run, "probe_accuracy")[0]) for run in runs):
        caption += "The online probe is measured on augmented training images while the encoder "
        caption += "changes. It shows progress; use the evaluations above to compare runs. "
    if len({display_names.method_name(run) for run in runs}) > 1:
        caption += "Losses of different methods are different quantities: each has its own plot."
    return caption


def _runs(groups: Sequence[Group]) -> str:
    head = ["Run", "Seeds", "Steps", "Batch", "Images seen", "Images / s", "Device", "Folder"]
    rows = []
    for i, group in enumerate(groups):
        cells = "".join(f"<td>{escape(text)}</td>" for text in _run_facts(group))
        rows.append(f"<tr><th>{_colored_name(i, group)}</th>{cells}</tr>")
    sentence = "Images / s: median over the training; other load on the machine lowers it."
    return section("Runs", note(sentence) + table(head, rows, kind="plain"))


def _run_facts(group: Group) -> list[str]:
    """Returns the cells of a group; each cell lists the distinct values of its runs."""
    columns: list[list[str]] = [[] for _ in range(7)]
    for run in group.runs:
        step = int(run.metrics[-1]["step"]) if run.metrics else 0
        rate = metric_series(run, "images_per_second")[1]
        device = run.metadata.get("device", "")
        facts = [
            "" if seed_groups.seed(run) is None else str(seed_groups.seed(run)),
            f"{step:,}" if step else "",
            f"{run.batch_size:,}" if step and run.batch_size else "",
            f"{step * run.batch_size:,}" if step * run.batch_size else "",
            f"{np.median(rate):,.0f}" if len(rate) else "",
            f"{run.metadata.get('devices', 1)} × {device}" if device else "",
            run.workdir.name,
        ]
        for column, fact in zip(columns, facts, strict=True):
            column.append(fact)
    return [", ".join(dict.fromkeys(filter(None, column))) or "–" for column in columns]


def _configs(groups: Sequence[Group]) -> str:
    heading = "Differences of the configs"
    fields = seed_groups.config_differences(groups)
    if not fields:
        return section(heading, placeholder("The configs differ at most in the seed."))
    rows = [text_row(field, values) for field, values in fields.items()]
    head = ["Field", *(group.name for group in groups)]
    return section(heading, table(head, rows, kind="plain fields"))


def _protocols(groups: Sequence[Group]) -> str:
    content = ""
    for data, columns in seed_groups.columns(groups).items():
        for column in columns:
            if fields := seed_groups.protocol_differences(column):
                rows = [text_row(field, values) for field, values in fields.items()]
                heading = f"{column.heading}, {data}" if data else column.heading
                head = ["Field", *(group.name for group in groups)]
                content += f"<h3>{escape(heading)}</h3>" + table(head, rows, kind="plain fields")
    if not content:
        return ""
    sentence = "The numbers of these columns follow different protocols: compare them with care."
    return section("Differences of the protocols", note(sentence) + content)
