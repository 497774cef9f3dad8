"""The page of a study: one HTML file, its tables and figures beside SimCLR's published table."""

from collections.abc import Sequence

from ssl_jax.report import evaluation
from ssl_jax.report.markup import (
    ESCAPE,
    absent,
    code,
    document,
    figure,
    grid,
    header,
    note,
    plain_row,
    section,
)  # fmt: skip
from ssl_jax.report.page import duration
from ssl_jax.rundir import workdir
from ssl_jax.study import figures, gather, listing, noise, points, scaling, table
from ssl_jax.study.folder import Study
from ssl_jax.study.gather import Row
from ssl_jax.study.points import Panel

PAGE, CSV = "study.html", "study.csv"
BESIDE = 3  # lengths, with intervals: more need the whole width
ONE_SEED = (
    "One seed: nothing here says how another would come out, and small differences mean nothing."
)
INTERVAL = (
    "±: half-width of the 95 % t-interval of the mean over seeds, which draw the training's "
    "randomness and, where few are taken, the labels."
)


def write(study: Study) -> str:
    """Writes study.csv, figures/*.png and study.html; returns the table and their paths."""
    rows = gather.rows(study)
    workdir.write_text(study.path / CSV, gather.table(rows))
    names = gather.evaluations(rows)
    parts = [
        _header(rows),
        _tables(study, rows, names),
        _accuracy(study, rows, names),
        _noise(study, rows),
        _scaling(study, rows),
        _cells(rows, names),
        _protocols(rows),
        _reproduce(study),
    ]
    body = "\n".join(part for part in parts if part)
    workdir.write_text(study.path / PAGE, document(_title(rows), body))
    tables = [_terminal(panel, names) for panel in points.panels(rows) if names]
    return "\n".join([*tables, f"{study.path / CSV}", f"{study.path / PAGE}"])


def _terminal(panel: Panel, names: dict[str, str]) -> str:
    lines = []
    for name, heading in names.items():
        title = ", ".join(filter(None, [heading, panel.title]))
        lines += [f"\n{title}, per cent:", table.text(panel, name)]
    return "\n".join([*lines, ""])


def _title(rows: Sequence[Row]) -> str:
    run = next((row.run for row in rows if row.run), None)
    return f"Study: {evaluation.title(run)}" if run else "Study"


def _header(rows: Sequence[Row]) -> str:
    model = rows[0].cell.config.model
    trained = [row for row in rows if not row.cell.same_as]
    facts = [f"{model.name}, width {model.get('width', 1):g}"] if "width" in model else [model.name]
    facts.append(f"{rows[0].cell.config.augment.size} pixels")
    facts.append(f"{len(rows)} cells, {len(trained)} trainings")
    counts = {status: sum(row.status == status for row in rows) for status in _STATUSES}
    facts += [f"{count} {status}" for status, count in counts.items() if count]
    return header(_title(rows), facts)


_STATUSES = ("done", "diverged", "failed", "unfinished", "missing")


def _seeds(panel: Panel) -> str:
    most = max(len(point.rows) for point in panel.points)
    return INTERVAL if most > 1 else ONE_SEED


def _tables(study: Study, rows: Sequence[Row], names: dict[str, str]) -> str:
    if not names:
        sentence = "No cell is evaluated yet, or the data has no labels: no eval/*.json."
        return section("Batch and length", absent(sentence))
    name, heading = next(iter(names.items()))
    left = ""
    for panel in points.panels(rows):
        left += f"<h3>This study: {ESCAPE(heading)}{_of(panel)}, per cent</h3>"
        left += table.html(panel, name) + note(_seeds(panel))
    right = "<h3>SimCLR: ImageNet, ResNet-50, linear top-1, per cent</h3>" + table.published()
    right += note(
        "Linear rule above, sqrt below. Chen et al. 2020, arXiv 2002.05709, table B.1. Other data, "
        "model, optimizer and lengths than this study's: compare the shapes of the two tables, "
        "never their numbers."
    )
    wide = max(len(panel.lengths) for panel in points.panels(rows)) > BESIDE
    kind = "" if wide else "halves"
    content = f'<div class="{kind}"><div>{left}</div><div>{right}</div></div>'
    if any("lr_rule" in row.cell.setting for row in rows):
        content += note(f"{_below(rows)} {listing.rule_note(study)}")
    if found := gather.baselines(rows, name):
        sentence = ", ".join(f"{key}: {value:.1f}" for key, value in found.items())
        content += note(f"Under the same protocol: {sentence}.")
    return section("Batch and length", content)


def _below(rows: Sequence[Row]) -> str:
    rules = sorted({row.rule for row in rows})
    return f"One below the other, rules of the learning rate: {', '.join(rules)}."


def _of(panel: Panel) -> str:
    return ESCAPE(f", {panel.title}") if panel.title else ""


def _picture(study: Study, name: str, picture: bytes, alt: str, caption: str) -> str:
    """The figure as figures/NAME.png and in the page; "" when there is none."""
    if not picture:
        return ""
    (study.path / "figures").mkdir(exist_ok=True)
    (study.path / "figures" / f"{name}.png").write_bytes(picture)
    return f'<div class="below">{figure(picture, alt, caption)}</div>'


def _accuracy(study: Study, rows: Sequence[Row], names: dict[str, str]) -> str:
    content = ""
    for i, panel in enumerate(points.panels(rows) if names else []):
        name, title = next(iter(names.items()))
        end = f"_{i}" if panel.title else ""
        seeds = _seeds(panel).replace("±", "Bars")
        if seeds != ONE_SEED:
            seeds += " They may leave the plot, whose height is that of the seeds' values."
        seeds += " Crosses: diverged." if any(point.diverged for point in panel.points) else ""
        pictures = [
            ("batch", figures.against_batch(panel, names), "Accuracy against batch", seeds),
            (panel.lengths[0][0], figures.against_length(panel, name, title),
             f"Accuracy against {panel.lengths[0][0]}", seeds),
            ("lr_rule", figures.rules(panel, name, title), "The rules compared",
             "Above 0 the square-root rule is better. Diamonds: mean over seeds, each compared "
             "with the same seed; dots: seeds. No value where both rules give one rate. Right: "
             "one run each, of other data and model."),
        ]  # fmt: skip
        made = [_picture(study, f"{key}{end}", png, alt, text) for key, png, alt, text in pictures]
        if any(made) and panel.title:
            content += f"<h3>{ESCAPE(panel.title)}</h3>"
        content += "".join(made)
    return section("Accuracy", content) if content else ""


def _noise(study: Study, rows: Sequence[Row]) -> str:
    caption = (
        "Up to about this many images, a larger batch saves steps in proportion; beyond, little "
        "(McCandlish et al., arXiv 1812.06162). Running means over about 100 steps. "
        "A contrastive loss changes with its batch, which brings the negatives: each point is of "
        "the loss at its own batch. Dots: runs."
    )
    made = _picture(study, "noise_scale", noise.draw(rows), "Noise scale against batch", caption)
    return section("Gradient noise scale", made) if made else ""


def _scaling(study: Study, rows: Sequence[Row]) -> str:
    found = scaling.series(rows)
    caption = (
        "Medians of the trainings' own rates, of whatever else the machines did meanwhile. Dotted: "
        "ideal, from the fewest devices; per cent: efficiency, of that."
    )
    platforms = {row.run.metadata.get("platform") for row in rows if row.run}
    if "cpu" in platforms:
        caption += (
            " Devices are of a CPU: they share its cores and its memory, and more devices than "
            "cores cannot be faster."
        )
    made = _picture(study, "scaling", scaling.draw(found), "Scaling over devices", caption)
    if not made:
        return ""
    head = ["Scaling", "Batch", "Devices", "Images / s", "Efficiency"]
    lines = [
        plain_row(
            f"{one.kind}{f', {one.others}' if one.others else ''}",
            [
                f"{one.batch:,}{' per device' if one.kind == scaling.WEAK else ''}",
                n,
                f"{rate.value:,.0f}" + (f" ± {rate.half:,.0f}" if rate.half is not None else ""),
                f"{one.efficiency(n):.0%}",
            ],
        )
        for one in found
        for n, rate in one.rates.items()
    ]
    return section("Scaling", made + grid(head, lines, kind="plain"))


def _cells(rows: Sequence[Row], names: dict[str, str]) -> str:
    head = ["Cell", "Status", "Rate", *names.values(), "Last loss", "Images / s", "Devices", "Time"]
    numbers = {row.cell.name: i for i, row in enumerate(rows)}
    lines = [
        plain_row(f"{i}  {row.cell.name}", _facts(row, names, numbers))
        for i, row in enumerate(rows)
    ]
    content = note(
        "Losses of different batches are different quantities. “As 3”: the very training of cell "
        "3, which was run once."
    )
    content += grid(head, lines, kind="plain cells")
    for row in rows:
        if row.status in ("diverged", "failed") and not row.cell.same_as:
            heading = f"{row.cell.name}: {row.status}, exit {row.record.get('exit')}"
            content += f"<h3>{ESCAPE(heading)}</h3>" + code("\n".join(row.record.get("lines", [])))
    return section("Cells", content)


def _facts(row: Row, names: dict[str, str], numbers: dict[str, int]) -> list[str]:
    accuracies = [row.accuracy(name) for name in names]
    loss, rate, seconds = row.last("loss"), row.images_per_second, row.record.get("seconds")
    return [
        f"as {numbers[row.cell.same_as]}" if row.cell.same_as else row.status,
        f"{row.cell.rate:.4g}",
        *(f"{value:.1f}" if value is not None else "–" for value in accuracies),
        f"{loss:.3f}" if loss is not None else "–",
        f"{rate:,.0f}" if rate is not None else "–",
        str(row.devices or "–"),
        duration(seconds) if seconds else "–",
    ]


def _protocols(rows: Sequence[Row]) -> str:
    found = {
        evaluation.heading(e): gather.protocol(e) for row in rows for e in row.evaluations.values()
    }
    lines = [plain_row(heading, [text]) for heading, text in found.items()]
    return section("Protocols", grid(["Evaluation", "How"], lines, kind="plain")) if lines else ""


def _reproduce(study: Study) -> str:
    """The commands, one for every grid that was added."""
    words = " ".join(f"'{word}'" if "(" in word else word for word in study.arguments)
    lines = [
        f"python -m ssl_jax.study {words} --workdir={study.path} --grid='{text}'"
        for text in study.grids
    ]
    return section("Reproduce", code("\n".join(lines)))
