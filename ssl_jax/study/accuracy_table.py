"""Table of accuracy by batch size and training length, laid out like SimCLR's published table."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from ssl_jax.report import html_elements
from ssl_jax.report.html_elements import escape
from ssl_jax.study.grid import format_value
from ssl_jax.study.results import Length
from ssl_jax.study.seed_means import Panel, Point

EPOCHS = (100, 200, 400, 800)
# {batch: (linear rule, sqrt rule) for each length in EPOCHS}. Linear evaluation of ResNet-50 on
# ImageNet, top-1 in per cent: Chen et al. 2020, arXiv 2002.05709, table B.1.
PUBLISHED: dict[int, tuple[tuple[float, float], ...]] = {
    256: ((57.5, 62.8), (61.9, 64.3), (64.7, 65.7), (66.6, 66.5)),
    512: ((60.7, 63.8), (64.0, 65.6), (66.2, 66.7), (67.8, 67.4)),
    1024: ((62.8, 64.3), (65.3, 66.1), (67.2, 67.2), (68.5, 68.3)),
    2048: ((64.0, 64.7), (66.1, 66.8), (68.1, 67.9), (68.9, 68.8)),
    4096: ((64.6, 64.5), (66.5, 66.8), (68.2, 68.0), (68.9, 69.1)),
    8192: ((64.8, 64.8), (66.6, 67.0), (67.8, 68.3), (69.0, 69.1)),
}


def is_comparable(config: ConfigDict) -> bool:
    """Returns whether the published table is of the same data and encoder as a study's config."""
    model = config.model
    is_imagenet = "imagenet" in str(config.data.source)
    return is_imagenet and model.name == "resnet50" and model.get("width", 1) == 1


def markdown(panel: Panel, name: str) -> str:
    """Returns a Markdown table: a row per batch, a column per length, "/" between the rules.

    Args:
      panel: accuracies to show.
      name: file name of the evaluation without ".json".
    """
    corner = f"{_corner(panel)} ({' / '.join(panel.rules)})"
    head = [corner, *(_length_text(length) for length in panel.lengths)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for batch in panel.batches:
        cells = [" / ".join(_texts(panel, name, batch, length)) for length in panel.lengths]
        lines.append(f"| {batch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _corner(panel: Panel) -> str:
    return f"batch \\ {' or '.join(sorted({unit for unit, _ in panel.lengths}))}"


def _length_text(length: Length) -> str:
    return format_value(length[1])


def _texts(panel: Panel, name: str, batch: int, length: Length) -> list[str]:
    """Returns the text of each rule; one text if all are equal and contain no number."""
    texts = [point_text(panel.point(batch, length, rule), name) for rule in panel.rules]
    equal = len(set(texts)) == 1 and not any(c.isdigit() for c in texts[0])
    return texts[:1] if equal else texts


def point_text(point: Point | None, name: str) -> str:
    """Formats a point as "92.1 ± 0.4", with its cells that diverged, failed or have not run.

    Returns:
      "–" if the grid has no such point.
    """
    if point is None:
        return "–"
    mean = point.mean(name)
    total = len(point.results)
    parts = []
    if mean:
        parts.append(f"{mean.value:.1f}" + (f" ± {mean.half:.1f}" if mean.half is not None else ""))
    if point.diverged:
        parts.append("diverged" if total == 1 else f"{point.diverged} of {total} diverged")
    if failed := point.count("failed"):
        parts.append("failed" if total == 1 else f"{failed} of {total} failed")
    if waiting := point.count("missing", "unfinished"):
        parts.append("to come" if waiting == total else f"{waiting} of {total} to come")
    return ", ".join(parts) or "not evaluated"


def html(panel: Panel, name: str) -> str:
    """Returns the table of `markdown` as HTML, with the rules below each other."""
    head = [_corner(panel), *(_length_text(length) for length in panel.lengths)]
    rows = []
    for batch in panel.batches:
        rows.append((batch, [_texts(panel, name, batch, length) for length in panel.lengths]))
    return _html_table(head, rows)


def published_html() -> str:
    """Returns SimCLR's published table in the same layout."""
    rows = [
        (batch, [[f"{value:.1f}" for value in pair] for pair in values])
        for batch, values in PUBLISHED.items()
    ]
    return _html_table(["batch \\ epochs", *map(str, EPOCHS)], rows)


def _html_table(head: Sequence[str], rows: Sequence[tuple[int, Sequence[Sequence[str]]]]) -> str:
    lines = []
    for batch, cells in rows:
        texts = ([part for text in cell for part in text.split(", ")] for cell in cells)
        spans = ("".join(f"<span>{escape(text)}</span>" for text in cell) for cell in texts)
        lines.append(f"<tr><th>{batch:,}</th>{''.join(f'<td>{cell}</td>' for cell in spans)}</tr>")
    return html_elements.table(head, lines, kind="plain rules")
