"""What the files of an evaluation mean: their kinds, names and order, in words, as data."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ssl_jax.report.files import Run

METHODS = {
    "barlow_twins": "Barlow Twins",
    "byol": "BYOL",
    "cpc": "CPC",
    "cssl": "CSSL",
    "dino": "DINO",
    "distillation": "Distillation",
    "imported": "Imported weights",
    "mae": "MAE",
    "moco": "MoCo",  # versions 1 and 2
    "moco_v3": "MoCo v3",
    "npid": "NPID",
    "rbm": "RBM",
    "siamese": "Siamese",
    "simclr": "SimCLR",
    "simclr_v2": "SimCLR v2",
    "simsiam": "SimSiam",
    "swav": "SwAV",
    "vicreg": "VICReg",
}
LABEL_FREE = {
    "rankme": ("RankMe", "how many directions the features use; raw pixels rank high, too"),
    "alignment": (
        "Alignment",
        "mean squared distance of two views; 0 in collapse, too",
    ),
    "uniformity": ("Uniformity", "0 when all images are equal, lower the more evenly they spread"),
    "feature_std": ("Standard deviation", "× √f: 1 when spread evenly, 0 when all are equal"),
}
BASELINES = ("untrained encoder", "raw pixels")
CURVES = ("few_shot", "layers")  # kinds whose numbers are lists
Evaluation = dict[str, Any]


class Numbers(NamedTuple):
    """An accuracy as it is shown, in per cent."""

    percent: float
    spread: float | None  # what follows ±
    kind: str  # of the spread: "ci95", "std" or ""


def title(run: Run) -> str:
    """ "SimCLR on cifar10", as far as the config tells."""
    if run.pretrained:
        return f"{method(run)}, evaluated on {data(run)}"
    return f"{method(run)} on {data(run)}" if data(run) else method(run)


def method(run: Run) -> str:
    """ "SimCLR", "SimCLR, fine-tuned,", or where given weights came from."""
    if origin := run.pretrained.get("origin"):
        return str(origin)
    name = METHODS.get(run.method, run.method) or "Self-supervised run"
    return name + (", fine-tuned," if "finetune" in run.config else "")


def data(run: Run) -> str:
    """Name of the images that the run was trained on, "" when the config does not say."""
    return str(run.config.get("data", {}).get("source", "")).removeprefix("tfds:")


def order(name: str) -> tuple[bool, float]:
    """Sort key of evaluations: linear by its number of labels, all labels last; then kNN."""
    kind, _, count = name.partition("_")
    return kind != "linear", float(count) if count.isdigit() else float("inf")


def heading(evaluation: Evaluation) -> str:
    """Name of an evaluation, as of a column."""
    kind, protocol = kind_of(evaluation), evaluation.get("protocol", {})
    if kind == "knn":
        return f"kNN, k = {protocol.get('k', '?')}"
    names = {
        "classifier": "Own classifier",
        "finetune": "Fine-tuned",
        "few_shot": "Few labels",
        "layers": "Layers",
        "label_free": "Without labels",
    }
    count = protocol.get("labels_per_class", 0)
    if kind == "few_shot" and count:
        return f"Few labels, {count} per class"
    if kind not in ("linear", "linear_sgd"):
        return names.get(kind, kind)
    how = "Linear, SGD" if kind == "linear_sgd" else "Linear"
    return f"{how}, {count} labels per class" if count else f"{how}, all labels"


def kind_of(evaluation: Evaluation) -> str:
    """Its kind, "" when the file does not say."""
    return str(evaluation.get("evaluation", ""))


def by_data(run: Run) -> dict[str, dict[str, Evaluation]]:
    """{data set: {file name: evaluation}}, in order; "" are the images the run was trained on."""
    found: dict[str, dict[str, Evaluation]] = {"": {}} if run.evals else {}
    for name in sorted(run.evals, key=lambda n: (order(_kind_name(run.evals[n], n)), n)):
        found.setdefault(str(run.evals[name].get("data", "")), {})[name] = run.evals[name]
    return {name: evals for name, evals in found.items() if evals}


def _kind_name(evaluation: Evaluation, name: str) -> str:
    """File name without what a transfer puts before it."""
    if "data" not in evaluation:
        return name
    count = evaluation.get("protocol", {}).get("labels_per_class", 0)
    return f"{kind_of(evaluation)}_{count}" if count else kind_of(evaluation)


def scores(evals: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """Those whose results are accuracies, one number each."""
    return {
        name: e
        for name, e in evals.items()
        if kind_of(e) not in CURVES and any(numbers(r) for r in _results(e).values())
    }


def accuracies(evals: Mapping[str, Evaluation]) -> list[Evaluation]:
    """`scores`, and one for every number of labels of the few-shot evaluations."""
    found = list(scores(evals).values())
    for few in of_kind(evals, "few_shot").values():
        sets = {name: _by_shot(r) for name, r in _results(few).items()}
        for shot in dict.fromkeys(shot for one in sets.values() for shot in one):
            results = {name: one[shot] for name, one in sets.items() if shot in one}
            protocol = {**few.get("protocol", {}), "labels_per_class": shot, "shots": shot}
            found.append(few | {"protocol": protocol, "results": results})
    return found


def column(found: Any, key: str) -> list[Any]:
    """A list in a result, [] where there is none."""
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, list) else []


def _by_shot(found: Any) -> dict[int, dict[str, Any]]:
    """{shots: result} of a few-shot result whose lists are whole."""
    shots, accuracies, ci = (column(found, key) for key in ("shots", "accuracy", "ci95"))
    if len(shots) != len(accuracies):
        return {}
    rows = zip(shots, accuracies, ci if len(ci) == len(shots) else [None] * len(shots), strict=True)
    return {shot: {"accuracy": accuracy, "ci95": ci} for shot, accuracy, ci in rows}


def not_above_baselines(run: Run) -> list[str]:
    """Names of the evaluations in which a baseline is as good as the run's own features."""
    found = []
    for data, evals in by_data(run).items():
        for e in accuracies(evals):
            mine = numbers(result(e, own(run, e)))
            bars = [n.percent for name in BASELINES if (n := numbers(result(e, name)))]
            if mine and bars and mine.percent <= max(bars):
                found.append(heading(e) + (f" ({data.removeprefix('tfds:')})" if data else ""))
    return found


def label_free_rows(found: Evaluation, sets: Iterable[str]) -> list[list[str]]:
    """Rows of name, a value for each of `sets`, and meaning."""
    rows = []
    for key, (name, meaning) in LABEL_FREE.items():
        values = [(result(found, s) or {}).get(key) for s in sets]
        if any(isinstance(v, int | float) for v in values):
            rows.append([name, *map(_written, values), meaning])
    return rows


def _written(value: Any) -> str:
    return f"{value:.3g}".replace("-", "−") if isinstance(value, int | float) else "–"


def of_kind(evals: Mapping[str, Evaluation], kind: str) -> dict[str, Evaluation]:
    """Those of a kind."""
    return {name: e for name, e in evals.items() if kind_of(e) == kind}


def others(evals: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """Those that nothing here knows how to draw."""
    known = {*scores(evals), *of_kind(evals, "label_free")}
    known |= {name for kind in CURVES for name in of_kind(evals, kind)}
    return {name: e for name, e in evals.items() if name not in known}


def feature_sets(evals: Iterable[Evaluation]) -> list[str]:
    """Names of all feature sets, in order of appearance."""
    return list(dict.fromkeys(name for e in evals for name in _results(e)))


def own(run: Run, evaluation: Evaluation) -> str:
    """The run's own feature set: that of its method, or the first that no baseline is."""
    names = feature_sets([evaluation])
    if run.method in names:
        return run.method
    return next((name for name in names if name not in BASELINES), "")


def result(evaluation: Evaluation, name: str) -> Any:
    """What an evaluation found of a feature set; None if nothing."""
    return _results(evaluation).get(name)


def _results(evaluation: Evaluation) -> dict[str, Any]:
    results = evaluation.get("results")
    return results if isinstance(results, dict) else {}


def numbers(found: Any) -> Numbers | None:
    """The accuracy in a result, with its 95 % interval or else its deviation; None without."""
    if not isinstance(found, dict) or not isinstance(found.get("accuracy"), int | float):
        return None
    percent = 100 * float(found["accuracy"])
    many = len(found.get("draws") or ()) > 1
    for key in ("ci95", "std") if many else ("ci95",):
        if isinstance(found.get(key), int | float):
            return Numbers(percent, 100 * float(found[key]), key)
    return Numbers(percent, None, "")


def written(found: Numbers | None) -> str:
    """ "95.6 ± 1.7", "–" without a number."""
    if found is None:
        return "–"
    unit = " (sd)" if found.kind == "std" else ""
    spread = "" if found.spread is None else f" ± {found.spread:.1f}{unit}"
    return f"{found.percent:.1f}{spread}"


def spread_note(shown: Iterable[Numbers | None]) -> str:
    """A sentence that says what the ± of these numbers are; "" when there are none."""
    kinds = {found.kind for found in shown if found}
    if "ci95" in kinds:
        return (
            "±: half-width of the 95 % t-interval of the mean over draws of labels or seeds; it "
            "tells nothing of other test images or of training again."
            + (" With (sd): standard deviation over draws." if "std" in kinds else "")
        )
    return "±: standard deviation over draws of labels." if "std" in kinds else ""


def steps(evals: Iterable[Evaluation]) -> str:
    """ "1,000, 2,000": the training steps that were evaluated."""
    found = {e["step"] for e in evals if isinstance(e.get("step"), int) and e["step"]}
    return ", ".join(f"{step:,}" for step in sorted(found))
