"""Runs side by side: those that differ in the seed alone belong together."""

import json
import math
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from ssl_jax.report import evaluation
from ssl_jax.report.evaluation import Evaluation
from ssl_jax.report.files import Run
from ssl_jax.report.markup import flat, text

SEED = "train.seed"


class Group(NamedTuple):
    """Runs of one config and of seeds that are all different."""

    name: str
    runs: tuple[Run, ...]


class Mean(NamedTuple):
    """A mean over seeds, in per cent."""

    value: float
    half: float | None  # width of the 95 % t-interval; None of one seed
    seeds: int

    def above(self, other: "Mean") -> bool:
        """Whether the intervals of both are known and apart, this one above."""
        if self.half is None or other.half is None:
            return False
        return self.value - self.half > other.value + other.half


def group(runs: Sequence[Run]) -> list[Group]:
    """Groups in order of their first run, each with a name of its own.

    A run without a config stands alone, and so does one whose seed its group has already: another
    run of one seed is no independent sample.
    """
    members: list[list[Run]] = []
    for run in runs:
        fitting = (m for m in members if run.config and _rest(m[0]) == _rest(run))
        found = next((m for m in fitting if seed(run) not in map(seed, m)), None)
        found.append(run) if found else members.append([run])
    names = _names([runs[0] for runs in members])
    return [Group(name, tuple(runs)) for name, runs in zip(names, members, strict=True)]


def seed(run: Run) -> Any:
    """The run's seed, None when the config does not say."""
    return flat(run.config).get(SEED)


def _rest(run: Run) -> str:
    fields = {key: value for key, value in flat(run.config).items() if key != SEED}
    return json.dumps(fields, sort_keys=True, default=str)


def _names(runs: Sequence[Run]) -> list[str]:
    """Method, with its data where they differ, with its folder where that is not enough."""
    several = len({evaluation.data(run) for run in runs}) > 1
    names = [evaluation.title(run) if several else evaluation.method(run) for run in runs]
    names = [name.rstrip(",") for name in names]
    folders = _folders(runs)
    clash = {name for name in names if names.count(name) > 1}
    return [
        f"{name} · {folder}" if name in clash else name
        for name, folder in zip(names, folders, strict=True)
    ]


def _folders(runs: Sequence[Run]) -> list[str]:
    """Ends of the runs' paths, as long as it takes to tell them apart."""
    parts = [os.path.abspath(run.workdir).split(os.sep) for run in runs]
    depth = 1
    while len({tuple(p[-depth:]) for p in parts}) < len(parts) and depth < max(map(len, parts)):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def mean(values: Sequence[float]) -> Mean | None:
    """Mean of independent values and the half-width of its 95 % interval (Student's t)."""
    if not values:
        return None
    count = len(values)
    if count == 1:
        return Mean(float(values[0]), None, 1)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return Mean(float(np.mean(values)), float(stats.t.ppf(0.975, count - 1)) * error, count)


class Column(NamedTuple):
    """An evaluation of all groups: for each group what its runs have of it."""

    heading: str
    found: tuple[tuple[Evaluation, ...], ...]

    def means(self, groups: Sequence[Group], name: str = "") -> list[Mean | None]:
        """Of the runs' own features, or of the feature set `name`."""
        return [
            mean([n.percent for r, e in zip(g.runs, es, strict=True) if (n := _pick(r, e, name))])
            for g, es in zip(groups, self.found, strict=True)
        ]


def _pick(run: Run, found: Evaluation, name: str) -> evaluation.Numbers | None:
    if not found:
        return None
    return evaluation.numbers(evaluation.result(found, name or evaluation.own(run, found)))


def columns(groups: Sequence[Group]) -> dict[str, list[Column]]:
    """{data set: columns}, of all evaluations that any run has."""
    found: dict[str, dict[str, dict[tuple[int, int], Evaluation]]] = {}
    for i, members in enumerate(groups):
        for j, run in enumerate(members.runs):
            for data, evals in evaluation.by_data(run).items():
                table = found.setdefault(data.removeprefix("tfds:") or evaluation.data(run), {})
                for e in evaluation.scores(evals).values():
                    table.setdefault(evaluation.heading(e), {})[i, j] = e
    return {
        data: [
            Column(
                heading,
                tuple(
                    tuple(cells.get((i, j), {}) for j in range(len(members.runs)))
                    for i, members in enumerate(groups)
                ),
            )
            for heading, cells in table.items()
        ]
        for data, table in found.items()
        if table
    }


def best(means: Sequence[Mean | None]) -> int | None:
    """Which mean is above all others by its interval; None when none is."""
    known = {i: m for i, m in enumerate(means) if m}
    if len(known) < 2:
        return None
    top = max(known, key=lambda i: known[i].value)
    return top if all(known[top].above(m) for i, m in known.items() if i != top) else None


def differing(settings: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """{field: its value in each} of the fields that are not the same in all; "–" where absent."""
    fields = dict.fromkeys(field for one in settings for field in one)
    rows = {f: [text(one[f]) if f in one else "–" for one in settings] for f in sorted(fields)}
    return {field: values for field, values in rows.items() if len(set(values)) > 1}


def config_differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Fields of the configs that are not the same in all groups; the seed left out."""
    configs = [flat(members.runs[0].config) for members in groups]
    return differing([{k: v for k, v in c.items() if k != SEED} for c in configs])


def protocol_differences(column: Column) -> dict[str, list[str]]:
    """Fields of a column's protocols that are not the same in all groups that have it."""
    first = [next((e for e in es if e), {}) for es in column.found]
    fields = differing([_protocol(e) for e in first if e])
    return {
        field: [_protocol(e).get(field, "–") if e else "not evaluated" for e in first]
        for field in fields
    }


def _protocol(found: Evaluation) -> dict[str, Any]:
    """Without seeds, which a group has several of."""
    protocol = found.get("protocol")
    fields = flat(protocol) if isinstance(protocol, dict) else {}
    return {k: re.sub(r"seed \d+", "seed", text(v)) for k, v in fields.items() if k != "seed"}
