"""A plan as one page of HTML that needs no network and no script."""

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


def page(plan: Plan) -> str:
    """The whole page."""
    timed = () if plan.program.out_of_memory else (_step, _collectives, _run)
    body = "\n".join(part(plan) for part in (_header, _memory, *timed, _origin))
    return document(f"Plan: {plan.name} on {plan.program.topology.name}", body)


def _header(plan: Plan) -> str:
    forecast, totals = plan.forecast, plan.totals
    memory = plan.program.memory
    facts = [(formatting.size(memory.total), f"of {formatting.size(memory.limit)} on each device")]
    if not plan.program.out_of_memory:
        facts += [
            (formatting.seconds(forecast.step), f"a step, {forecast.binds} binds"),
            (formatting.count(forecast.images_per_second), "images / s"),
            (formatting.percent(forecast.mfu), "of the peak FLOP/s"),
            (formatting.duration(totals.seconds), f"{totals.steps:,} steps"),
            (formatting.hours(totals.chip_hours), "chip-hours"),
        ]
    found = verdict(plan.program)
    top = header(plan.name, [text_report.where(plan)])
    return top + section("Verdict", f"{note(found.sentence)}{fact_boxes(facts)}")


def _memory(plan: Plan) -> str:
    picture = figure(figures.memory(plan.program.memory), "Memory of a device", "")
    rows = table(("Part", "Bytes", "Of the device"), text_report.memory(plan))
    return section("Memory of a device: compiled", picture + rows)


def _step(plan: Plan) -> str:
    caption = "Dark: at full rate; light: at the rate that is reached. The step: the "
    caption += "longer of the first two, then the network (orange); the line goes from all "
    caption += "overlapping at full rates to nothing overlapping."
    picture = figure(figures.step(plan.forecast), "Time of a step", caption)
    rows = table(("Resource", "Time", ""), text_report.times(plan.forecast))
    if plan.checked:
        head, *compared = text_report.comparison(plan)
        rows += "<h3>Predicted and measured on this machine</h3>" + table(head, compared)
    done = "<h3>Work of a device (compiled)</h3>" + table(("", ""), text_report.work(plan))
    return section("Time of a step: modelled", picture + rows + done)


def _collectives(plan: Plan) -> str:
    heading = "Collectives: compiled, their times modelled"
    picture = figures.collectives(plan.forecast)
    if picture is None:
        return section(heading, placeholder("None: no device tells another anything."))
    head, *rows = text_report.collectives(plan.forecast)
    caption = "By kind and devices in a group; plan.json lists every one with its source."
    return section(heading, figure(picture, "Collectives", caption) + table(head, rows))


def _run(plan: Plan) -> str:
    content = table(("", "", ""), text_report.run(plan))
    content += "<h3>Input (measured on the planning machine)</h3>"
    content += table(("", ""), text_report.inputs(plan))
    content += "<h3>Sizes</h3>" + table(("Field", "Value", ""), text_report.sizes(plan))
    return section("The run", content)


def _origin(plan: Plan) -> str:
    sentences = "".join(note(line) for line in text_report.origin(plan))
    return section("What is compiled, what is modelled", sentences + code(plan.command))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "plain") -> str:
    """Rows whose first cell is their name; "plain tight" where there are many columns."""
    lines = [text_row(row[0], map(_cell, row[1:])) for row in rows]
    return html_elements.table(head, lines, kind=kind)


def _cell(text: str) -> str:
    """A number and its unit stay on one line; what is not there stays blank."""
    short = len(text) <= 20 and any(map(str.isdigit, text))
    return text.replace(" ", SPACE) if short else text or SPACE
