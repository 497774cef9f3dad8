"""Evaluations of a run: their kinds, their order, and the results for each feature set.

An evaluation is the content of an eval/*.json file: its kind ("evaluation"), its "protocol", the
"step" of the checkpoint, and "results" by feature set. A feature set is the method's features or a
baseline.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ssl_jax.jobs.json_files import is_number
from ssl_jax.report.accuracies import accuracy_of
from ssl_jax.report.display_names import METHOD_NAMES, data_name, evaluation_name
from ssl_jax.report.run_files import Run, protocol_of

LABEL_FREE = {  # {key in the results: (name, meaning)}
    "rankme": ("RankMe", "number of directions that the features use; raw pixels also rank high"),
    "alignment": (
        "Alignment",
        "mean squared distance of two views; also 0 when the features collapse",
    ),
    "uniformity": ("Uniformity", "0 when all images are equal, lower the more evenly they spread"),
    "feature_std": ("Standard deviation", "× √f: 1 when spread evenly, 0 when all are equal"),
    **{
        f"{way}_r{k}": (
            f"{name}, recall at {k}",
            f"{query} with a right {found} among the first {k}",
        )
        for way, name, query, found in (
            ("image_to_text", "Image to text", "images", "caption"),
            ("text_to_image", "Text to image", "captions", "image"),
        )
        for k in (1, 5, 10)
    },
}
UNTRAINED = "untrained encoder"
RAW = "raw pixels"  # of images; the raw baseline of another modality is "raw ..."
STATISTICS = ("accuracy", "std", "ci95", "draws")  # keys of every result with accuracies
FITS = ("iterations", "gradient_norm")  # keys of lists about the fits behind the accuracies
SHOTS = "shots"  # key of the numbers of labels per class that accuracies are listed by
WORDS = ("analogy", "similarity", "neighbours")  # kinds that `word_sections` shows
Evaluation = dict[str, Any]


def evaluation_kind(evaluation: Evaluation) -> str:
    """Returns the kind, for example "linear" or "knn"; "" if the file does not name it."""
    return str(evaluation.get("evaluation", ""))


def sort_key(name: str) -> tuple[bool, float]:
    """Sorts names: linear evaluations by number of labels, all labels last, then the others.

    Args:
      name: kind, and number of labels after "_" if it is not all, for example "linear_10".
    """
    kind, _, labels = name.partition("_")
    return kind != "linear", float(labels) if labels.isdecimal() else float("inf")


def by_data(run: Run) -> dict[str, dict[str, Evaluation]]:
    """Groups the evaluations by data set and label field.

    Returns:
      {data set: {file name: evaluation}}, sorted. The data set "" is the run's own data with the
      run's own label field; another label field is named after the data set.
    """
    groups: dict[str, dict[str, Evaluation]] = {"": {}} if run.evals else {}
    for name in sorted(run.evals, key=lambda n: (sort_key(_kind_name(run.evals[n], n)), n)):
        groups.setdefault(_data_and_label(run, run.evals[name]), {})[name] = run.evals[name]
    return {data: evals for data, evals in groups.items() if evals}


def _data_and_label(run: Run, evaluation: Evaluation) -> str:
    data, label = str(evaluation.get("data", "")), evaluation.get("label")
    return f"{data or data_name(run)}, label {label}" if label else data


def is_transfer(evals: Mapping[str, Evaluation]) -> bool:
    """Tells whether a group of `by_data` was measured on other data than the training data."""
    return any("data" in evaluation for evaluation in evals.values())


def _kind_name(evaluation: Evaluation, name: str) -> str:
    """Returns the file name without the prefix for other data or another label field."""
    if "data" not in evaluation and "label" not in evaluation:
        return name
    labels = protocol_of(evaluation).get("labels_per_class", 0)
    kind = evaluation_kind(evaluation)
    return f"{kind}_{labels}" if labels else kind


def with_one_accuracy(evals: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """Selects the evaluations whose results are one accuracy for each feature set."""
    return {
        name: evaluation
        for name, evaluation in evals.items()
        if not curve_axis(evaluation)
        and any(accuracy_of(result) for result in _results(evaluation).values())
    }


def split_by_shots(evals: Mapping[str, Evaluation]) -> list[Evaluation]:
    """Returns `with_one_accuracy`, then one evaluation per number of labels of few-shot ones."""
    evaluations = list(with_one_accuracy(evals).values())
    for few_shot in (e for e in evals.values() if curve_axis(e) == SHOTS):
        sets = {name: _by_shots(result) for name, result in _results(few_shot).items()}
        for shots in dict.fromkeys(shots for by_shots in sets.values() for shots in by_shots):
            results = {
                name: by_shots[shots] for name, by_shots in sets.items() if shots in by_shots
            }
            protocol = {**protocol_of(few_shot), "labels_per_class": shots, "shots": shots}
            evaluations.append(few_shot | {"protocol": protocol, "results": results})
    return evaluations


def curve_axis(evaluation: Evaluation) -> str:
    """Returns the key of the x values if "accuracy" is a list; "" for other evaluations.

    The key is that of the first list that is not a statistic, for example "shots" or "layers".
    """
    for result in _results(evaluation).values():
        if result_list(result, "accuracy"):
            lists = (key for key, value in result.items() if isinstance(value, list))
            return next((key for key in lists if key not in (*STATISTICS, *FITS)), "")
    return ""


def result_list(result: Any, key: str) -> list[Any]:
    """Returns the list under `key` of a result; [] if there is no list."""
    value = result.get(key) if isinstance(result, dict) else None
    return value if isinstance(value, list) else []


def _by_shots(result: Any) -> dict[float, dict[str, Any]]:
    """Splits a few-shot result into {shots: result}; {} if its lists differ in length."""
    shots, accuracies, ci = (result_list(result, key) for key in ("shots", "accuracy", "ci95"))
    if len(shots) != len(accuracies):
        return {}
    rows = zip(shots, accuracies, ci if len(ci) == len(shots) else [None] * len(shots), strict=True)
    return {
        shot: {"accuracy": accuracy, "ci95": ci} for shot, accuracy, ci in rows if is_number(shot)
    }


def not_above_baselines(run: Run) -> list[str]:
    """Names the evaluations in which a baseline is as good as the run's own features."""
    names = []
    for data, evals in by_data(run).items():
        for evaluation in split_by_shots(evals):
            own = accuracy_of(result_of(evaluation, own_features(run, evaluation)))
            baselines = [
                accuracy.percent
                for name in baselines_in([evaluation])
                if (accuracy := accuracy_of(result_of(evaluation, name)))
            ]
            if own and baselines and own.percent <= max(baselines):
                suffix = f" ({data.removeprefix('tfds:')})" if data else ""
                names.append(evaluation_name(evaluation) + suffix)
    return names


def doubts(evaluation: Evaluation) -> list[str]:
    """Returns the reasons to doubt the accuracies that the results state, as sentences.

    Results of older versions state none.
    """
    sentences = []
    if names := _marked(evaluation, "converged", False):
        sentences.append(
            f"L-BFGS stopped before its tolerance on {names}: these accuracies are of unfinished "
            "fits, and the optimum may differ by some tenths of a per cent."
        )
    if names := _marked(evaluation, "lr_at_edge", True):
        sentences.append(
            f"The best rate is at the end of the grid for {names}: a rate beyond it may be better."
        )
    return sentences


def _marked(evaluation: Evaluation, key: str, mark: bool) -> str:
    """Names the feature sets whose result has the mark, joined by commas."""
    results = _results(evaluation).items()
    names = [name for name, r in results if isinstance(r, dict) and r.get(key) is mark]
    return ", ".join(METHOD_NAMES.get(name, name) for name in names)


def label_free_rows(evaluation: Evaluation, feature_sets: Iterable[str]) -> list[list[str]]:
    """Returns rows of a table: name of the measure, a value per feature set, its meaning."""
    rows = []
    for key, (name, meaning) in LABEL_FREE.items():
        results = [result_of(evaluation, features) for features in feature_sets]
        values = [result.get(key) if isinstance(result, dict) else None for result in results]
        if any(map(is_number, values)):
            rows.append([name, *map(_format_number, values), meaning])
    return rows


def _format_number(value: Any) -> str:
    return f"{value:.3g}".replace("-", "−") if is_number(value) else "–"


def with_curves(evals: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """Selects the evaluations whose accuracies are lists, for example over layers."""
    return {name: evaluation for name, evaluation in evals.items() if curve_axis(evaluation)}


def with_measures(evals: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """Selects the evaluations that need no labels: their results have keys of LABEL_FREE."""
    return {
        name: evaluation
        for name, evaluation in evals.items()
        if any(isinstance(r, dict) and LABEL_FREE.keys() & r for r in _results(evaluation).values())
    }


def of_unknown_kind(evals: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """Selects the evaluations that the report has no table or figure for."""
    known = {*with_one_accuracy(evals), *with_measures(evals), *with_curves(evals)}
    known |= {name for name, evaluation in evals.items() if evaluation_kind(evaluation) in WORDS}
    return {name: evaluation for name, evaluation in evals.items() if name not in known}


def feature_sets(evals: Iterable[Evaluation]) -> list[str]:
    """Returns the names of all feature sets, in order of appearance."""
    return list(dict.fromkeys(name for evaluation in evals for name in _results(evaluation)))


def is_baseline(name: str) -> bool:
    """Tells whether a feature set is the untrained encoder or the raw input."""
    return name == UNTRAINED or name.startswith("raw ")


def baselines_in(evals: Iterable[Evaluation]) -> tuple[str, str]:
    """Returns the names of the two baselines; the raw input has its modality's name."""
    raw = (name for name in feature_sets(evals) if name.startswith("raw "))
    return UNTRAINED, next(raw, RAW)


def own_features(run: Run, evaluation: Evaluation) -> str:
    """Returns the run's own feature set: its method's, or the first that is no baseline."""
    names = feature_sets([evaluation])
    if run.method in names:
        return run.method
    return next((name for name in names if not is_baseline(name)), "")


def result_of(evaluation: Evaluation, name: str) -> Any:
    """Returns the result for one feature set; None if there is none."""
    return _results(evaluation).get(name)


def _results(evaluation: Evaluation) -> dict[str, Any]:
    results = evaluation.get("results")
    return results if isinstance(results, dict) else {}


def evaluated_steps(evals: Iterable[Evaluation]) -> str:
    """Returns the training steps of the evaluated checkpoints, for example "1,000, 2,000"."""
    steps = {
        evaluation["step"]
        for evaluation in evals
        if is_number(evaluation.get("step")) and evaluation["step"]
    }
    return ", ".join(f"{step:,}" for step in sorted(steps))
