"""YAML header of a model card, as the Hugging Face Hub reads it.

Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md. Strings are written as JSON
strings, which are valid YAML. So no text can end the header or start a field.
"""

import json
import re
from typing import Any

from ssl_jax.report import evaluations
from ssl_jax.report.accuracies import accuracy_of
from ssl_jax.report.display_names import evaluation_name
from ssl_jax.report.formatting import one_line
from ssl_jax.report.run_files import Run

TASK = "image-classification"


def yaml(run: Run | None, *, name: str, license: str, library: str) -> str:
    """Returns the header between its "---" lines, with a model-index if there are accuracies.

    Args:
      run: run that trained the weights; None if the weights come from elsewhere.
      name: name of the model.
      license: licence as the Hub writes it, or in words.
      library: the Hub's name of the library that loads the weights; "" leaves the field out.
    """
    lines = _license(license)
    if library:
        lines.append(f"library_name: {_quote(library)}")
    lines += ["pipeline_tag: image-feature-extraction", "tags:", "- ssl_jax"]
    if run is None or run.pretrained:
        lines.append("- image-feature-extraction")
    else:
        lines += ["- self-supervised-learning"]
        lines += [f"- {_quote(run.method)}"] if run.method else []
    results = _results(run) if run else []
    if results:
        lines += ["model-index:", f"- name: {_quote(name)}", "  results:", *results]
    return "\n".join(["---", *lines, "---"])


def _license(license: str) -> list[str]:
    if re.fullmatch(r"[a-z0-9][a-z0-9.\-]{0,39}", license):
        return [f"license: {_quote(license)}"]
    return ["license: other", *([f"license_name: {_quote(license)}"] if license else [])]


def _results(run: Run) -> list[str]:
    """Returns the accuracies of the run's own features in per cent, by data set."""
    lines = []
    for data, evals in evaluations.by_data(run).items():
        source = data or str(run.config.get("data", {}).get("source", "")) or "unknown"
        metrics: list[str] = []
        for evaluation in evaluations.split_by_shots(evals):
            features = evaluations.own_features(run, evaluation)
            accuracy = accuracy_of(evaluations.result_of(evaluation, features))
            if accuracy:
                metrics += [
                    "    - type: accuracy",
                    f"      name: {_quote(f'Top-1, {evaluation_name(evaluation)} (%)')}",
                    f"      value: {round(accuracy.percent, 2)}",
                ]
        if metrics:
            lines += [
                "  - task:",
                f"      type: {TASK}",
                "    dataset:",
                f"      type: {_quote(_slug(source))}",
                f"      name: {_quote(source.removeprefix('tfds:'))}",
                "    metrics:",
                *metrics,
            ]
    return lines


def _slug(source: str) -> str:
    return re.sub(r"[^a-z0-9_.\-]+", "_", source.removeprefix("tfds:").lower()) or "unknown"


def _quote(value: Any) -> str:
    return json.dumps(one_line(str(value), 200), ensure_ascii=False)
