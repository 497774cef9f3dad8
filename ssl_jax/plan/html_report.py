"""A plan as one self-contained HTML page: no network, no scripts."""

from collections.abc import Sequence

from ssl_jax.plan import figures, formatting, text_report
from ssl_jax.plan.result import Plan, verdict
from ssl_jax.report import html_elements
from ssl_jax.report.html_elements import (
    code,
    document,
    fact_boxes,
    figure,
    header,
    note,
    placeholder,
    section,
    text_row,
)  # fmt: skip

SPACE = "\N{NO-BREAK SPACE}"


def plan_page(plan: Plan) -> str:
    """Returns the whole page."""
    time_parts = () if plan.program.out_of_memory else (_step, _collectives, _run)
    body = "\n".join(part(plan) for part in (_header, _memory, *time_parts, _basis))
    return document(f"Plan: {plan.name} on {plan.program.topology.name}", body)


def _header(plan: Plan) -> str:
    forecast, totals = plan.forecast, plan.totals
    needed, limit = map(formatting.size, (plan.program.memory.total, plan.program.memory.limit))
    numbers = [(needed, f"of {limit} on each device")]
    if not plan.program.out_of_memory:
        numbers += [
            (formatting.seconds(forecast.step), f"per step, limited by {forecast.binds}"),
            (formatting.count(forecast.images_per_second), "images / s"),
            (formatting.percent(forecast.mfu), "of the peak FLOP/s"),
            (formatting.duration(totals.seconds), f"{totals.steps:,} steps"),
            (formatting.hours(totals.chip_hours), "chip-hours"),
        ]
    top = header(plan.name, [text_report.describe_topology(plan)])
    sentence = note(verdict(plan.program).sentence)
    return top + section("Verdict", f"{sentence}{fact_boxes(numbers)}")


def _memory(plan: Plan) -> str:
    picture = figure(figures.memory_bar(plan.program.memory), "Memory of a device", "")
    rows = table(("Part", "Bytes", "Of the device"), text_report.memory_rows(plan))
    return section("Memory of a device: compiled", picture + rows)


def _step(plan: Plan) -> str:
    caption = "Dark: at full rate; light: at the assumed rate. Step: the longer of the first two, "
    caption += "then the network (orange). The line runs from full overlap at full rates to no "
    caption += "overlap."
    picture = figure(figures.step_bars(plan.forecast), "Time of a step", caption)
    rows = table(("Resource", "Time", ""), text_report.time_rows(plan.forecast))
    if plan.checked:
        head, *compared = text_report.comparison_rows(plan)
        rows += "<h3>Predicted and measured on this machine</h3>" + table(head, compared)
    work = "<h3>Work of a device (compiled)</h3>" + table(("", ""), text_report.work_rows(plan))
    return section("Time of a step: modelled", picture + rows + work)


def _collectives(plan: Plan) -> str:
    heading = "Collectives: compiled, their times modelled"
    picture = figures.collective_bars(plan.forecast)
    if picture is None:
        return section(heading, placeholder("None: devices exchange nothing."))
    head, *rows = text_report.collective_rows(plan.forecast)
    caption = "By kind and group of devices; plan.json lists every collective with its source."
    return section(heading, figure(picture, "Collectives", caption) + table(head, rows))


def _run(plan: Plan) -> str:
    content = table(("", "", ""), text_report.run_rows(plan))
    content += "<h3>Input (measured on the planning machine)</h3>"
    content += table(("", ""), text_report.input_rows(plan))
    content += "<h3>Sizes</h3>" + table(("Field", "Value", ""), text_report.size_rows(plan))
    return section("The run", content)


def _basis(plan: Plan) -> str:
    sentences = "".join(note(line) for line in text_report.basis(plan))
    return section("What is compiled, what is modelled", sentences + code(plan.command))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "plain") -> str:
    """Returns a table; the first cell of a row is its name.

    Args:
      kind: CSS classes; "plain tight" for many columns.
    """
    lines = [text_row(row[0], map(_cell, row[1:])) for row in rows]
    return html_elements.table(head, lines, kind=kind)


def _cell(text: str) -> str:
    """Keeps a number and its unit on one line; an empty cell stays blank."""
    short = len(text) <= 20 and any(map(str.isdigit, text))
    return text.replace(" ", SPACE) if short else text or SPACE
