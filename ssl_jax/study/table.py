"""Batch × length of a study, in the layout of SimCLR's published table."""

from collections.abc import Sequence

from ssl_jax.report.markup import ESCAPE, grid
from ssl_jax.study.gather import Length
from ssl_jax.study.grid import spelled
from ssl_jax.study.points import Panel, Point

EPOCHS = (100, 200, 400, 800)
# Linear evaluation of ResNet-50 on ImageNet, top-1 in per cent, learning rate by the linear and by
# the square-root rule: Chen et al. 2020, arXiv 2002.05709, table B.1.
PUBLISHED: dict[int, tuple[tuple[float, float], ...]] = {
    256: ((57.5, 62.8), (61.9, 64.3), (64.7, 65.7), (66.6, 66.5)),
    512: ((60.7, 63.8), (64.0, 65.6), (66.2, 66.7), (67.8, 67.4)),
    1024: ((62.8, 64.3), (65.3, 66.1), (67.2, 67.2), (68.5, 68.3)),
    2048: ((64.0, 64.7), (66.1, 66.8), (68.1, 67.9), (68.9, 68.8)),
    4096: ((64.6, 64.5), (66.5, 66.8), (68.2, 68.0), (68.9, 69.1)),
    8192: ((64.8, 64.8), (66.6, 67.0), (67.8, 68.3), (69.0, 69.1)),
}


def text(panel: Panel, name: str) -> str:
    """Markdown: a row for every batch, a column for every length, the rules with / between."""
    corner = f"{_corner(panel)} ({' / '.join(panel.rules)})"
    head = [corner, *(_length(length) for length in panel.lengths)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for batch in panel.batches:
        cells = [_text(panel, name, batch, length) for length in panel.lengths]
        lines.append(f"| {batch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _corner(panel: Panel) -> str:
    return f"batch \\ {' or '.join(sorted({unit for unit, _ in panel.lengths}))}"


def _length(length: Length) -> str:
    return spelled(length[1])


def _text(panel: Panel, name: str, batch: int, length: Length) -> str:
    return " / ".join(_parts(panel, name, batch, length))


def _parts(panel: Panel, name: str, batch: int, length: Length) -> list[str]:
    """What stands for each rule; once what is no number and the same for all."""
    parts = [written(panel.point(batch, length, rule), name) for rule in panel.rules]
    alike = len(set(parts)) == 1 and not any(c.isdigit() for c in parts[0])
    return parts[:1] if alike else parts


def written(point: Point | None, name: str) -> str:
    """ "92.1 ± 0.4", with what diverged; "–" where the grid has no such cell."""
    if point is None:
        return "–"
    mean = point.mean(name)
    parts = []
    if mean:
        parts.append(f"{mean.value:.1f}" + (f" ± {mean.half:.1f}" if mean.half is not None else ""))
    if point.diverged:
        of = "" if len(point.rows) == 1 else f"{point.diverged} of {len(point.rows)} "
        parts.append(f"{of}diverged")
    if failed := point.count("failed"):
        parts.append("failed" if len(point.rows) == 1 else f"{failed} of {len(point.rows)} failed")
    if waiting := point.count("missing", "unfinished"):
        of = "" if waiting == len(point.rows) else f"{waiting} of {len(point.rows)} "
        parts.append(f"{of}to come")
    return ", ".join(parts) or "not evaluated"


def html(panel: Panel, name: str) -> str:
    """The same as a table of a page, the rules one below the other."""
    head = [_corner(panel), *(_length(length) for length in panel.lengths)]
    rows = []
    for batch in panel.batches:
        rows.append((batch, [_parts(panel, name, batch, length) for length in panel.lengths]))
    return _grid(head, rows)


def published() -> str:
    """SimCLR's table, alike."""
    rows = [
        (batch, [[f"{value:.1f}" for value in pair] for pair in values])
        for batch, values in PUBLISHED.items()
    ]
    return _grid(["batch \\ epochs", *map(str, EPOCHS)], rows)


def _grid(head: Sequence[str], rows: Sequence[tuple[int, Sequence[Sequence[str]]]]) -> str:
    lines = []
    for batch, cells in rows:
        texts = ([part for text in cell for part in text.split(", ")] for cell in cells)
        written = ("".join(f"<span>{ESCAPE(text)}</span>" for text in cell) for cell in texts)
        lines.append(
            f"<tr><th>{batch:,}</th>{''.join(f'<td>{cell}</td>' for cell in written)}</tr>"
        )
    return grid(head, lines, kind="plain rules")
