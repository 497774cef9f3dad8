"""Page of a study: one HTML file with tables and figures.

A study of ResNet-50 on ImageNet has SimCLR's published table beside its own.
"""

import shlex
from collections.abc import Sequence

from ssl_jax.jobs import files
from ssl_jax.report import display_names
from ssl_jax.report.formatting import duration
from ssl_jax.report.html_elements import (
    code,
    command,
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
from ssl_jax.rundir import workdir
from ssl_jax.study import accuracy_table, results, seed_means, terminal
from ssl_jax.study.figures import accuracy, noise_scale, scaling
from ssl_jax.study.results import Result
from ssl_jax.study.seed_means import Panel
from ssl_jax.study.study_folder import Study

PAGE, CSV = "study.html", "study.csv"
STATUSES = ("done", "diverged", "failed", "unfinished", "missing")
SIDE_BY_SIDE = 3  # largest number of lengths at which both tables fit beside each other
ONE_SEED = (
    "One seed: the results do not show how other seeds vary, and small differences mean nothing."
)
INTERVAL = (
    "±: half-width of the 95 % t-interval of the mean over seeds. The seed draws the training's "
    "randomness and, for evaluations with few labels, the labels."
)


def write(study: Study) -> str:
    """Writes study.csv, figures/*.png and study.html; returns the tables and the files' paths."""
    rows = results.read_results(study)
    workdir.write_text(study.path / CSV, results.to_csv(rows))
    names = results.evaluation_names(rows)
    parts = [
        _header(rows),
        _tables(study, rows, names),
        _accuracy(study, rows, names),
        _noise_scale(study, rows),
        _scaling(study, rows),
        _cells(rows, names),
        _protocols(rows),
        _reproduce(study),
    ]
    body = "\n".join(part for part in parts if part)
    workdir.write_text(study.path / PAGE, document(_title(rows), body))
    tables = [_terminal_tables(panel, names) for panel in seed_means.panels(rows) if names]
    return "\n".join([*tables, f"{study.path / CSV}", f"{study.path / PAGE}"])


def _terminal_tables(panel: Panel, names: dict[str, str]) -> str:
    lines = []
    for name, heading in names.items():
        title = ", ".join(filter(None, [heading, panel.title]))
        lines += [f"\n{title}, per cent:", accuracy_table.markdown(panel, name)]
    return "\n".join([*lines, ""])


def _title(rows: Sequence[Result]) -> str:
    run = next((row.run for row in rows if row.run), None)
    return f"Study: {display_names.run_title(run)}" if run else "Study"


def _header(rows: Sequence[Result]) -> str:
    model = rows[0].cell.config.model
    trained = [row for row in rows if not row.cell.same_as]
    facts = [f"{model.name}, width {model.get('width', 1):g}"] if "width" in model else [model.name]
    facts.append(f"{rows[0].cell.config.augment.size} pixels")
    facts.append(f"{len(rows)} cells, {len(trained)} trainings")
    counts = {status: sum(row.status == status for row in rows) for status in STATUSES}
    facts += [f"{count} {status}" for status, count in counts.items() if count]
    return header(_title(rows), facts)


def _seed_note(panel: Panel) -> str:
    seeds = max(len(point.results) for point in panel.points)
    return INTERVAL if seeds > 1 else ONE_SEED


def _tables(study: Study, rows: Sequence[Result], names: dict[str, str]) -> str:
    heading = "Batch and length"
    if not names:
        sentence = "No cell is evaluated yet, or the data has no labels: no eval/*.json exists."
        return section(heading, placeholder(sentence))
    panels = seed_means.panels(rows)
    name, title = next(iter(names.items()))
    left = ""
    for panel in panels:
        suffix = f", {panel.title}" if panel.title else ""
        left += f"<h3>This study: {escape(title + suffix)}, per cent</h3>"
        left += accuracy_table.html(panel, name) + note(_seed_note(panel))
    content = left
    if accuracy_table.is_comparable(rows[0].cell.config):
        wide = max(len(panel.lengths) for panel in panels) > SIDE_BY_SIDE
        kind = "" if wide else "halves"
        content = f'<div class="{kind}"><div>{left}</div><div>{_published()}</div></div>'
    if any("lr_rule" in row.cell.setting for row in rows):
        rules = ", ".join(sorted({row.rule for row in rows}))
        sentence = f"Learning-rate rules, one below the other: {rules}."
        content += note(f"{sentence} {terminal.rule_note(study)}")
    if baselines := results.baseline_accuracies(rows, name):
        sentence = ", ".join(f"{key}: {value:.1f}" for key, value in baselines.items())
        content += note(f"Baselines under the same protocol: {sentence}.")
    return section(heading, content)


def _published() -> str:
    content = "<h3>SimCLR: ImageNet, ResNet-50, linear top-1, per cent</h3>"
    return (
        content
        + accuracy_table.published_html()
        + note(
            "Linear rule above, sqrt below. Chen et al. 2020, arXiv 2002.05709, table B.1. Its "
            "optimizer, lengths and evaluation may differ from this study: compare the shapes of "
            "the two tables before their numbers."
        )
    )


def _figure(study: Study, name: str, picture: bytes, alt: str, caption: str) -> str:
    """Writes figures/NAME.png and returns its HTML; "" if the picture is empty."""
    if not picture:
        return ""
    figures = files.inside(study.path, "figures")
    figures.mkdir(exist_ok=True)
    files.write(figures / f"{name}.png", picture)
    return f'<div class="below">{figure(picture, alt, caption)}</div>'


def _accuracy(study: Study, rows: Sequence[Result], names: dict[str, str]) -> str:
    content, comparable = "", accuracy_table.is_comparable(rows[0].cell.config)
    for i, panel in enumerate(seed_means.panels(rows) if names else []):
        name, title = next(iter(names.items()))
        suffix = f"_{i}" if panel.title else ""
        caption = _seed_note(panel).replace("±", "Bars")
        if caption != ONE_SEED:
            caption += " Bars may leave the plot, whose height fits the values of the seeds."
        caption += " Crosses: diverged." if any(point.diverged for point in panel.points) else ""
        unit = panel.lengths[0][0]
        pictures = [
            ("batch", accuracy.against_batch(panel, names), "Accuracy against batch", caption),
            (unit, accuracy.against_length(panel, name, title), f"Accuracy against {unit}",
             caption),
            ("lr_rule", accuracy.rule_gains(panel, name, title, with_published=comparable),
             "The rules compared",
             "Above 0 the square-root rule is better. Diamonds: mean over seeds, each compared "
             "with the same seed; dots: seeds. A batch has no value if both rules give the same "
             "rate." + (" Right: one published run each." if comparable else "")),
        ]  # fmt: skip
        figures = [
            _figure(study, f"{key}{suffix}", png, alt, text) for key, png, alt, text in pictures
        ]
        if any(figures) and panel.title:
            content += f"<h3>{escape(panel.title)}</h3>"
        content += "".join(figures)
    return section("Accuracy", content) if content else ""


def _noise_scale(study: Study, rows: Sequence[Result]) -> str:
    caption = (
        "Up to about this many images, a larger batch saves steps in proportion; beyond that, it "
        "saves little (McCandlish et al., arXiv 1812.06162). Running means over about 100 steps. "
        "A contrastive loss depends on its batch, which contains the negatives: each point is for "
        "the loss at its own batch size. Dots: runs."
    )
    picture = noise_scale.draw(rows)
    content = _figure(study, "noise_scale", picture, "Noise scale against batch", caption)
    return section("Gradient noise scale", content) if content else ""


def _scaling(study: Study, rows: Sequence[Result]) -> str:
    series = scaling.find_series(rows)
    caption = (
        "Medians of the rates that the trainings logged; other load on the machines lowers them. "
        "Dotted: ideal scaling from the fewest devices. Efficiency: measured rate in per cent of "
        "the ideal."
    )
    platforms = {row.run.metadata.get("platform") for row in rows if row.run}
    if "cpu" in platforms:
        caption += (
            " The devices are parts of a CPU and share its cores and its memory, so more devices "
            "than cores cannot be faster."
        )
    picture = scaling.draw(series)
    content = _figure(study, "scaling", picture, "Scaling over devices", caption)
    if not content:
        return ""
    head = ["Scaling", "Batch", "Devices", "Images / s", "Efficiency"]
    lines = [
        text_row(
            f"{one.kind}{f', {one.others}' if one.others else ''}",
            [
                f"{one.batch:,}{' per device' if one.kind == scaling.WEAK else ''}",
                devices,
                f"{rate.value:,.0f}" + (f" ± {rate.half:,.0f}" if rate.half is not None else ""),
                f"{one.efficiency(devices):.0%}",
            ],
        )
        for one in series
        for devices, rate in one.rates.items()
    ]
    return section("Scaling", content + table(head, lines, kind="plain"))


def _cells(rows: Sequence[Result], names: dict[str, str]) -> str:
    head = ["Cell", "Status", "Rate", *names.values(), "Last loss", "Images / s", "Devices", "Time"]
    numbers = {row.cell.name: i for i, row in enumerate(rows)}
    lines = [
        text_row(f"{i}  {row.cell.name}", _cell_facts(row, names, numbers))
        for i, row in enumerate(rows)
    ]
    content = note(
        "Losses of different batches are different quantities. “as 3”: the same training as cell "
        "3, which ran once."
    )
    content += table(head, lines, kind="plain cells")
    for row in rows:
        if row.status in ("diverged", "failed") and not row.cell.same_as:
            heading = f"{row.cell.name}: {row.status}, exit {row.record.get('exit')}"
            content += f"<h3>{escape(heading)}</h3>" + code("\n".join(row.record.get("lines", [])))
    return section("Cells", content)


def _cell_facts(row: Result, names: dict[str, str], numbers: dict[str, int]) -> list[str]:
    accuracies = [row.accuracy(name) for name in names]
    loss, rate = row.last_value("loss"), row.images_per_second
    seconds = row.record.get("seconds")
    return [
        f"as {numbers[row.cell.same_as]}" if row.cell.same_as else row.status,
        f"{row.cell.rate:.4g}",
        *(f"{value:.1f}" if value is not None else "–" for value in accuracies),
        f"{loss:.3f}" if loss is not None else "–",
        f"{rate:,.0f}" if rate is not None else "–",
        str(row.devices or "–"),
        duration(seconds) if seconds else "–",
    ]


def _protocols(rows: Sequence[Result]) -> str:
    protocols = {
        display_names.evaluation_name(evaluation): results.protocol_text(evaluation)
        for row in rows
        for evaluation in row.evaluations.values()
    }
    lines = [text_row(name, [text]) for name, text in protocols.items()]
    return section("Protocols", table(["Evaluation", "How"], lines, kind="plain")) if lines else ""


def _reproduce(study: Study) -> str:
    """Shows the commands, one for each grid of the study."""
    words = ["python", "-m", "ssl_jax.study", *study.arguments, f"--workdir={study.path}"]
    lines = [shlex.join([*words, f"--grid={text}"]) for text in study.grids]
    return section("Reproduce", command("\n".join(lines)))
