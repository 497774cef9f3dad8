"""Groups runs that differ only in the seed, and compares the groups."""

import json
import math
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from ssl_jax.report import display_names, evaluations
from ssl_jax.report.accuracies import Accuracy, accuracy_of
from ssl_jax.report.evaluations import Evaluation
from ssl_jax.report.formatting import as_text, flatten
from ssl_jax.report.run_files import Run, protocol_of

SEED = "train.seed"
TRAINING = ("augment.", "method.", "optim.", "train.")


class Group(NamedTuple):
    """Runs with the same config and different seeds."""

    name: str
    runs: tuple[Run, ...]


class Mean(NamedTuple):
    """Mean over seeds with its confidence interval.

    Attributes:
      value: the mean; accuracies are in per cent.
      half: half-width of the 95 % t-interval; None for a single seed.
      seeds: number of values.
    """

    value: float
    half: float | None
    seeds: int

    def above(self, other: "Mean") -> bool:
        """Returns True if both intervals are known and this one lies above the other one."""
        if self.half is None or other.half is None:
            return False
        return self.value - self.half > other.value + other.half


def mean(values: Sequence[float]) -> Mean | None:
    """Computes the mean of independent values and its 95 % interval by Student's t.

    Returns:
      None for no values.
    """
    if not values:
        return None
    count = len(values)
    if count == 1:
        return Mean(float(values[0]), None, 1)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return Mean(float(np.mean(values)), float(stats.t.ppf(0.975, count - 1)) * error, count)


def best(means: Sequence[Mean | None]) -> int | None:
    """Returns the index of the mean whose interval lies above all others; None if there is none."""
    known = {i: m for i, m in enumerate(means) if m}
    if len(known) < 2:
        return None
    top = max(known, key=lambda i: known[i].value)
    return top if all(known[top].above(m) for i, m in known.items() if i != top) else None


def group(runs: Sequence[Run]) -> list[Group]:
    """Groups runs by config, ignoring the seed.

    A run without a config forms its own group. So does a run whose seed is already in the group of
    its config, because a repeated seed is no independent sample.

    Returns:
      Groups with unique names, in the order of their first runs.
    """
    members: list[list[Run]] = []
    for run in runs:
        same_config = (m for m in members if run.config and _key(m[0]) == _key(run))
        match = next((m for m in same_config if seed(run) not in map(seed, m)), None)
        match.append(run) if match else members.append([run])
    names = _names([runs[0] for runs in members])
    return [Group(name, tuple(runs)) for name, runs in zip(names, members, strict=True)]


def seed(run: Run) -> Any:
    """Returns the run's seed; None if the config does not say."""
    return flatten(run.config).get(SEED)


def _key(run: Run) -> str:
    """Returns the config without the seed, as JSON."""
    fields = {key: value for key, value in flatten(run.config).items() if key != SEED}
    return json.dumps(fields, sort_keys=True, default=str)


def _names(runs: Sequence[Run]) -> list[str]:
    """Names each run by its method; adds the data if it differs, and the folder if still equal."""
    several = len({display_names.data_name(run) for run in runs}) > 1
    name_of = display_names.run_title if several else display_names.method_name
    names = [name_of(run).rstrip(",") for run in runs]
    folders = _folders(runs)
    repeated = {name for name in names if names.count(name) > 1}
    return [
        f"{name} · {folder}" if name in repeated else name
        for name, folder in zip(names, folders, strict=True)
    ]


def _folders(runs: Sequence[Run]) -> list[str]:
    """Returns the last parts of the runs' paths, as many parts as make them unique."""
    parts = [os.path.abspath(run.workdir).split(os.sep) for run in runs]
    depth = 1
    while len({tuple(p[-depth:]) for p in parts}) < len(parts) and depth < max(map(len, parts)):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


class Column(NamedTuple):
    """Column of the comparison: one evaluation of all groups.

    Attributes:
      heading: name of the evaluation.
      evaluations: for each group, the evaluation of each of its runs; {} if a run lacks it.
    """

    heading: str
    evaluations: tuple[tuple[Evaluation, ...], ...]

    def means(self, groups: Sequence[Group], features: str = "") -> list[Mean | None]:
        """Returns each group's mean accuracy for a feature set; by default the runs' own."""
        return [
            mean(
                [
                    accuracy.percent
                    for run, evaluation in zip(group.runs, evals, strict=True)
                    if (accuracy := _accuracy(run, evaluation, features))
                ]
            )
            for group, evals in zip(groups, self.evaluations, strict=True)
        ]


def ranked(groups: Sequence[Group]) -> list[Group]:
    """Sorts groups by the first evaluation's accuracy, the best first and unevaluated ones last."""
    tables = list(columns(groups).values())
    if not tables:
        return list(groups)
    means = tables[0][0].means(groups)
    order = sorted(range(len(groups)), key=lambda i: -(m.value if (m := means[i]) else -1.0))
    return [groups[i] for i in order]


def _accuracy(run: Run, evaluation: Evaluation, features: str) -> Accuracy | None:
    if not evaluation:
        return None
    features = features or evaluations.own_features(run, evaluation)
    return accuracy_of(evaluations.result_of(evaluation, features))


def columns(groups: Sequence[Group]) -> dict[str, list[Column]]:
    """Returns {data set: columns} for all evaluations with one accuracy that any run has."""
    tables: dict[str, dict[str, dict[tuple[int, int], Evaluation]]] = {}
    for i, group in enumerate(groups):
        for j, run in enumerate(group.runs):
            for data, evals in evaluations.by_data(run).items():
                name = data.removeprefix("tfds:") or display_names.data_name(run)
                table = tables.setdefault(name, {})
                for evaluation in evaluations.with_one_accuracy(evals).values():
                    heading = display_names.evaluation_name(evaluation)
                    table.setdefault(heading, {})[i, j] = evaluation
    return {
        data: [
            Column(
                heading,
                tuple(
                    tuple(cells.get((i, j), {}) for j in range(len(group.runs)))
                    for i, group in enumerate(groups)
                ),
            )
            for heading, cells in table.items()
        ]
        for data, table in tables.items()
        if table
    }


def differing(settings: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Returns {field: value in each setting} for fields that differ; "–" for a missing field."""
    fields = dict.fromkeys(field for setting in settings for field in setting)
    rows = {
        field: [as_text(setting[field]) if field in setting else "–" for setting in settings]
        for field in sorted(fields)
    }
    return {field: values for field, values in rows.items() if len(set(values)) > 1}


def config_differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Returns the config fields that differ between groups, see `differing`.

    Leaves out the seed. For imported weights it also leaves out the training fields, which hold
    only defaults.
    """
    configs = []
    for group in groups:
        run = group.runs[0]
        ignored = TRAINING if run.pretrained else (SEED,)
        fields = flatten(run.config).items()
        configs.append({key: value for key, value in fields if not key.startswith(ignored)})
    return differing(configs)


def protocol_differences(column: Column) -> dict[str, list[str]]:
    """Returns the protocol fields that differ between the groups that have this evaluation."""
    first = [next((e for e in evals if e), {}) for evals in column.evaluations]
    fields = differing([_protocol(evaluation) for evaluation in first if evaluation])
    return {
        field: [_protocol(e).get(field, "–") if e else "not evaluated" for e in first]
        for field in fields
    }


def _protocol(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the protocol without seeds, because the runs of a group have different seeds."""
    fields = flatten(protocol_of(evaluation))
    return {k: re.sub(r"seed \d+", "seed", as_text(v)) for k, v in fields.items() if k != "seed"}
