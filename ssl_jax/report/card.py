"""The model card of exported weights: what they are, how they load, how good they are, by what."""

import json
from collections.abc import Mapping
from typing import Any

from ssl_jax.report.files import Run

LONGEST = 200  # letters of a name
PERCENT = ("knn", "linear", "linear_sgd", "finetune", "classifier")


def markdown(
    run: Run | None, *, name: str, license: str, usage: str, facts: Mapping[str, str]
) -> str:
    """A card in the layout of the Hugging Face Hub: a YAML header, then prose.

    Args:
      run: that trained the weights; None for weights that no run of ours made.
      license: of the weights; "unknown" where nobody has said.
      usage: lines of Python that load them.
      facts: what there is to know of the export, by name.
    """
    parts = [
        _header(run, name, license),
        f"# {_line(name)}",
        "An encoder trained by self-supervision: images to features. No label took part, unless "
        "the recipe below says that it was fine-tuned.",
        f"## Load\n\n```python\n{usage.replace('```', '')}\n```",
        "## Facts\n\n" + _table(facts.items(), ("what", "value")),
    ]
    if run is not None:
        parts += [_evaluations(run), _recipe(run)]
    parts.append(
        "## Limits\n\nFeatures are as good as the numbers above say for data like those that they "
        "were measured on, and say nothing of other data. What is in the training images, biases "
        "included, is in the features.\n\n"
        f"Licence of the weights: {_line(license)}."
        + (" Nobody named one at the export." if license == "unknown" else "")
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(run: Run | None, name: str, license: str) -> str:
    """YAML, every value as JSON, which YAML contains: no name can leave its place."""
    tags = ["self-supervised-learning", "ssl_jax"]
    tags += [run.method] if run is not None and run.method else []
    lines = [
        "---",
        f"license: {json.dumps('other' if license == 'unknown' else license)}",
        "pipeline_tag: image-feature-extraction",
        f"tags: {json.dumps(tags)}",
    ]
    if results := _index(run) if run is not None else []:
        index = [{"name": _line(name), "results": results}]
        lines.append(f"model-index: {json.dumps(index)}")
    return "\n".join([*lines, "---"])


def _index(run: Run) -> list[dict[str, Any]]:
    found = []
    for file, evaluation in run.evals.items():
        numbers = evaluation["results"].get(run.method)
        if numbers is None or "accuracy" not in numbers or isinstance(numbers["accuracy"], list):
            continue
        data = _line(str(evaluation.get("data") or run.config.get("data", {}).get("source", "")))
        metric = {"type": "accuracy", "value": round(100 * numbers["accuracy"], 2), "name": file}
        found.append(
            {
                "task": {"type": "image-classification", "name": _line(file)},
                "dataset": {"type": data or "unknown", "name": data or "unknown"},
                "metrics": [metric],
            }
        )
    return found


def _evaluations(run: Run) -> str:
    """Accuracy by protocol, the method's own features beside the baselines."""
    rows = [
        (file, features, f"{100 * numbers['accuracy']:.1f}" + _interval(numbers))
        for file, evaluation in sorted(run.evals.items())
        if evaluation.get("evaluation") in PERCENT
        for features, numbers in evaluation["results"].items()
    ]
    if not rows:
        return "## Evaluation\n\nNot evaluated."
    protocols = [
        f"* {_line(file)}: "
        + "; ".join(f"{_line(str(k))}: {_line(str(v))}" for k, v in e.get("protocol", {}).items())
        for file, e in sorted(run.evals.items())
        if e.get("evaluation") in PERCENT
    ]
    table = _table(rows, ("evaluation", "features", "top-1 accuracy, per cent"))
    return "## Evaluation\n\n" + table + "\n\nProtocols:\n\n" + "\n".join(protocols)


def _interval(numbers: Mapping[str, Any]) -> str:
    if "ci95" in numbers and len(numbers.get("draws", ())) > 1:
        return f" ± {100 * numbers['ci95']:.1f} (95 % interval)"
    return ""


def _recipe(run: Run) -> str:
    rows = [
        (f"{section}.{field}", str(value))
        for section in ("data", "method", "model", "augment", "optim", "train", "finetune")
        for field, value in run.config.get(section, {}).items()
        if field not in ("dir", "init", "pretrained", "teacher")  # paths of one machine
    ]
    return "## Training\n\n" + _table(rows, ("field", "value"))


def _table(rows: Any, head: tuple[str, ...]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join(lines + [f"| {' | '.join(_line(str(c)) for c in row)} |" for row in rows])


def _line(text: str) -> str:
    """One line that neither ends a table's cell nor starts markup."""
    plain = "".join(c if c.isprintable() else " " for c in text)[: 4 * LONGEST]
    for sign in "\\`|<>*_[]#":
        plain = plain.replace(sign, f"\\{sign}")
    return plain.strip()
