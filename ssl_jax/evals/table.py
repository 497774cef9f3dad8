"""Evaluations as text for the terminal: one table of accuracies, one for each other kind."""

from collections.abc import Mapping, Sequence
from typing import Any

Evaluations = Mapping[str, dict[str, Any]]
LIST = {"few_shot": "shots", "layers": "layers"}  # kinds with a list of numbers, and of what
LABEL_FREE = ("rankme", "alignment", "uniformity", "feature_std")


def text(results: Evaluations) -> str:
    """Feature sets by evaluations; accuracies in per cent, ± their standard deviation."""
    plain = {n: r for n, r in results.items() if r["evaluation"] not in (*LIST, "label_free")}
    tables = [_accuracies(plain)] if plain else []
    for result in results.values():
        if result["evaluation"] in LIST:
            tables.append(_list(result, LIST[result["evaluation"]]))
        elif result["evaluation"] == "label_free":
            tables.append(_label_free(result))
    return "\n\n".join(tables)


def _accuracies(results: Evaluations) -> str:
    names = sorted(results, key=_column)
    sets = dict.fromkeys(s for name in names for s in results[name]["results"])
    rows = [["features", *(_heading(results[name]) for name in names)]]
    for feature_set in sets:
        cells = [_cell(results[name]["results"].get(feature_set)) for name in names]
        rows.append([feature_set, *cells])
    return _align(rows)


def _list(result: dict[str, Any], axis: str) -> str:
    """A column for each feature set, a row for each number of shots or layer."""
    sets = result["results"]
    heads = list(dict.fromkeys(head for numbers in sets.values() for head in numbers[axis]))
    rows: list[list[str]] = [[f"linear by {axis}" if axis == "layers" else axis, *sets]]
    for head in heads:
        cells = []
        for numbers in sets.values():
            place = numbers[axis].index(head) if head in numbers[axis] else None
            cells.append("-" if place is None else _percent(numbers, place))
        rows.append([str(head), *cells])
    return _align(rows)


def _percent(numbers: dict[str, Any], place: int) -> str:
    spread = f" ± {100 * numbers['std'][place]:.2f}" if "std" in numbers else ""
    return f"{100 * numbers['accuracy'][place]:.2f}{spread}"


def _label_free(result: dict[str, Any]) -> str:
    rows = [["without labels", *LABEL_FREE]]
    for name, numbers in result["results"].items():
        rows.append([name, *(f"{numbers[measure]:.3f}" for measure in LABEL_FREE)])
    return _align(rows)


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([r[0].ljust(widths[0]), *map(str.rjust, r[1:], widths[1:])]) for r in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _column(name: str) -> tuple[bool, float]:
    """Linear evaluations by their number of labels, all labels last; then others."""
    kind, _, count = name.partition("_")
    return kind != "linear" or name == "linear_sgd", float(count) if count.isdigit() else 1e9


def _heading(result: dict[str, Any]) -> str:
    protocol = result["protocol"]
    if result["evaluation"] == "knn":
        return f"{protocol['k']}-NN"
    if result["evaluation"] == "classifier":
        return "own classifier"
    if result["evaluation"] == "linear_sgd":
        return f"linear by SGD, {protocol['epochs']:g} epochs"
    count = protocol["labels_per_class"]
    return f"linear, {count} labels/class" if count else "linear, all labels"


def _cell(numbers: dict[str, Any] | None) -> str:
    if numbers is None:
        return "-"
    spread = f" ± {100 * numbers['std']:.2f}" if len(numbers["draws"]) > 1 else ""
    return f"{100 * numbers['accuracy']:.2f}{spread}"
