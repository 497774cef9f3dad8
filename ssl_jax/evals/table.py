"""Evaluations as text: one table of accuracies, then one table for each other protocol."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssl_jax.evals import protocols
from ssl_jax.evals.protocols import Protocol

Evaluation = dict[str, Any]
HEADINGS = {"classifier": "own classifier"}  # kinds of evaluations that are no protocols


def text(evaluations: Mapping[str, Evaluation]) -> str:
    """Returns the tables: accuracies in per cent, ± their standard deviation.

    Args:
      evaluations: {file name: evaluation}, as `results.evaluation` makes them.
    """
    by_protocol = [(_protocol(evaluation), evaluation) for evaluation in evaluations.values()]
    single = [e for protocol, e in by_protocol if not (protocol and _has_own_table(protocol))]
    tables = [_accuracies(single)] if single else []
    for protocol, evaluation in by_protocol:
        if protocol and protocol.axis:
            tables.append(_accuracies_along(protocol.axis, _heading(evaluation), evaluation))
        elif protocol and protocol.measures:
            tables.append(_measures(protocol.measures, _heading(evaluation), evaluation))
    return "\n\n".join(tables)


def _protocol(evaluation: Evaluation) -> Protocol | None:
    name = evaluation["evaluation"]
    return protocols.get(name) if name in protocols.names() else None


def _has_own_table(protocol: Protocol) -> bool:
    return bool(protocol.axis or protocol.measures)


def _heading(evaluation: Evaluation) -> str:
    protocol, kind = _protocol(evaluation), str(evaluation["evaluation"])
    return protocol.heading(evaluation["protocol"]) if protocol else HEADINGS.get(kind, kind)


def _accuracies(evaluations: Sequence[Evaluation]) -> str:
    evaluations = sorted(evaluations, key=_labels_first)
    names = dict.fromkeys(name for e in evaluations for name in e["results"])
    rows = [["features", *map(_heading, evaluations)]]
    for name in names:
        rows.append([name, *(_cell(e["results"].get(name)) for e in evaluations)])
    return _align(rows)


def _labels_first(evaluation: Evaluation) -> tuple[bool, float]:
    """Sorts evaluations by number of labels per class, all labels last; then the others."""
    protocol = evaluation["protocol"]
    return "labels_per_class" not in protocol, protocol.get("labels_per_class") or float("inf")


def _accuracies_along(axis: str, heading: str, evaluation: Evaluation) -> str:
    """Returns a table with a column per feature set, and a row per number of shots or layer."""
    results = evaluation["results"]
    places = list(dict.fromkeys(place for numbers in results.values() for place in numbers[axis]))
    rows: list[list[str]] = [[heading, *results]]
    for place in places:
        cells = []
        for numbers in results.values():
            if place in numbers[axis]:
                cells.append(_percent(numbers, numbers[axis].index(place)))
            else:
                cells.append("-")
        rows.append([str(place), *cells])
    return _align(rows)


def _percent(numbers: dict[str, Any], i: int) -> str:
    spread = f" ± {100 * numbers['std'][i]:.2f}" if "std" in numbers else ""
    return f"{100 * numbers['accuracy'][i]:.2f}{spread}"


def _measures(measures: Sequence[str], heading: str, evaluation: Evaluation) -> str:
    """Returns a table with a row per feature set, and a column per measure."""
    rows = [[heading, *measures]]
    for name, numbers in evaluation["results"].items():
        rows.append([name, *(f"{numbers[measure]:.3f}" for measure in measures)])
    return _align(rows)


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    justify: list[Callable[..., str]] = [str.ljust, *[str.rjust] * (len(widths) - 1)]
    lines = [
        "  ".join(just(cell, width) for just, cell, width in zip(justify, row, widths, strict=True))
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cell(numbers: dict[str, Any] | None) -> str:
    if numbers is None:
        return "-"
    spread = f" ± {100 * numbers['std']:.2f}" if len(numbers.get("draws", ())) > 1 else ""
    return f"{100 * numbers['accuracy']:.2f}{spread}"
