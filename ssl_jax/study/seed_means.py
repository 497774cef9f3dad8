"""Means over seeds: a point joins the cells of a study that differ only in the seed."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ssl_jax.report.seed_groups import Mean, mean
from ssl_jax.study.grid import format_value
from ssl_jax.study.results import Length, Result


class Point(NamedTuple):
    """Results of one batch size, length and learning-rate rule, over all seeds."""

    batch: int
    length: Length
    rule: str
    results: tuple[Result, ...]

    def mean(self, name: str) -> Mean | None:
        """Returns the mean accuracy of an evaluation in per cent, with its 95 % t-interval."""
        return mean(list(self.by_seed(name).values()))

    def by_seed(self, name: str) -> dict[int, float]:
        """Returns {seed: accuracy in per cent}.

        Takes the first of several cells with the same seed, which differ in the devices.
        """
        accuracies: dict[int, float] = {}
        for result in self.results:
            if (value := result.accuracy(name)) is not None:
                accuracies.setdefault(result.seed, value)
        return accuracies

    def count(self, *statuses: str) -> int:
        """Returns the number of cells with one of the statuses."""
        return sum(result.status in statuses for result in self.results)

    @property
    def rate(self) -> float:
        """Peak learning rate."""
        return self.results[0].cell.rate

    @property
    def diverged(self) -> int:
        """Number of cells whose loss was not finite."""
        return self.count("diverged")


class Panel(NamedTuple):
    """The points of one table. They differ only in batch size, training length and rate rule.

    Attributes:
      others: values of the other keys of the grid.
      points: the points.
    """

    others: dict[str, Any]
    points: tuple[Point, ...]

    @property
    def title(self) -> str:
        """Other keys with their values, for example "model.width 2"; "" if there are none."""
        return ", ".join(f"{key} {format_value(value)}" for key, value in self.others.items())

    @property
    def batches(self) -> list[int]:
        """Batch sizes in rising order."""
        return sorted({point.batch for point in self.points})

    @property
    def lengths(self) -> list[Length]:
        """Training lengths in rising order."""
        return sorted({point.length for point in self.points})

    @property
    def rules(self) -> list[str]:
        """Learning-rate rules; linear comes before sqrt, as in the published table."""
        return sorted({point.rule for point in self.points})

    def point(self, batch: int, length: Length, rule: str) -> Point | None:
        """Returns the point of these values; None if the grid has none."""
        key = (batch, length, rule)
        return next((p for p in self.points if (p.batch, p.length, p.rule) == key), None)


def panels(results: Sequence[Result]) -> list[Panel]:
    """Groups results into panels, in the order of the grid."""
    groups: dict[str, dict[tuple[int, Length, str], list[Result]]] = {}
    others = {}
    for result in results:
        name = str(sorted(result.others.items()))
        others[name] = result.others
        points = groups.setdefault(name, {})
        points.setdefault((result.batch, result.length, result.rule), []).append(result)
    return [
        Panel(others[name], tuple(Point(*key, tuple(members)) for key, members in points.items()))
        for name, points in groups.items()
    ]


def rule_differences(panel: Panel, name: str, length: Length) -> dict[int, list[float]]:
    """Compares the sqrt rule with the linear rule, seed by seed.

    Leaves out batch sizes at which both rules give the same rate.

    Args:
      panel: results to compare.
      name: file name of the evaluation without ".json".
      length: training length to compare at.

    Returns:
      {batch: accuracy by sqrt minus accuracy by linear, in percentage points, for each seed}.
    """
    differences = {}
    for batch in panel.batches:
        linear, root = (panel.point(batch, length, rule) for rule in ("linear", "sqrt"))
        if linear and root and not math.isclose(linear.rate, root.rate):
            a, b = linear.by_seed(name), root.by_seed(name)
            if values := [b[seed] - a[seed] for seed in sorted(a.keys() & b.keys())]:
                differences[batch] = values
    return differences
