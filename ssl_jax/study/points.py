"""The cells of a study that differ in the seed alone, as one point."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ssl_jax.report.groups import Mean, mean
from ssl_jax.study.gather import Length, Row
from ssl_jax.study.grid import spelled


class Point(NamedTuple):
    """One setting of batch, length and rule, over its seeds."""

    batch: int
    length: Length
    rule: str
    rows: tuple[Row, ...]

    def mean(self, name: str) -> Mean | None:
        """Accuracy in per cent over the seeds that have it, with its 95 % t-interval."""
        return mean(list(self.by_seed(name).values()))

    def by_seed(self, name: str) -> dict[int, float]:
        """{seed: accuracy in per cent}; of a seed on several numbers of devices, the first."""
        found: dict[int, float] = {}
        for row in self.rows:
            if (value := row.accuracy(name)) is not None:
                found.setdefault(row.seed, value)
        return found

    def count(self, *statuses: str) -> int:
        """How many seeds are that far."""
        return sum(row.status in statuses for row in self.rows)

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return self.rows[0].cell.rate

    @property
    def diverged(self) -> int:
        """How many seeds' loss was not finite."""
        return self.count("diverged")


class Panel(NamedTuple):
    """The points that differ in batch, length, rule and seed alone: one table."""

    others: dict[str, Any]  # what else the grid has, and its values here
    points: tuple[Point, ...]

    @property
    def title(self) -> str:
        """ "optim.weight_decay 0.1, model.width 2"; "" where nothing else varies."""
        return ", ".join(f"{key} {spelled(value)}" for key, value in self.others.items())

    @property
    def batches(self) -> list[int]:
        """Rising."""
        return sorted({point.batch for point in self.points})

    @property
    def lengths(self) -> list[Length]:
        """Rising."""
        return sorted({point.length for point in self.points})

    @property
    def rules(self) -> list[str]:
        """Linear first, as in the published table."""
        return sorted({point.rule for point in self.points})

    def point(self, batch: int, length: Length, rule: str) -> Point | None:
        """The point at this place, if the grid has one."""
        at = (p for p in self.points if (p.batch, p.length, p.rule) == (batch, length, rule))
        return next(at, None)


def panels(rows: Sequence[Row]) -> list[Panel]:
    """In the order of the grid."""
    found: dict[str, dict[tuple[int, Length, str], list[Row]]] = {}
    others = {}
    for row in rows:
        name = str(sorted(row.others.items()))
        others[name] = row.others
        points = found.setdefault(name, {})
        points.setdefault((row.batch, row.length, row.rule), []).append(row)
    return [
        Panel(others[name], tuple(Point(*key, tuple(of)) for key, of in points.items()))
        for name, points in found.items()
    ]


def differences(panel: Panel, name: str, length: Length) -> dict[int, list[float]]:
    """{batch: sqrt less linear of every seed that has both, in points}.

    Of a batch at which both rules give one rate there is nothing to compare.
    """
    found = {}
    for batch in panel.batches:
        linear, root = (panel.point(batch, length, rule) for rule in ("linear", "sqrt"))
        if linear and root and not math.isclose(linear.rate, root.rate):
            a, b = linear.by_seed(name), root.by_seed(name)
            if values := [b[seed] - a[seed] for seed in sorted(a.keys() & b.keys())]:
                found[batch] = values
    return found
