"""The YAML header of a model card, as the Hugging Face Hub reads it.

Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md. Strings are written as JSON
writes them, which is YAML too, so that no text can end the header or start a field.
"""

import json
import re
from typing import Any

from ssl_jax.report import evaluation
from ssl_jax.report.files import Run
from ssl_jax.report.plain import clean

TASK = "image-classification"


def yaml(run: Run | None, *, name: str, license: str, library: str) -> str:
    """The header with its rules; evaluations are in its model-index, where there are any."""
    lines = _license(license)
    if library:
        lines.append(f"library_name: {_quoted(library)}")
    lines += ["pipeline_tag: image-feature-extraction", "tags:", "- ssl_jax"]
    if run is None or run.pretrained:
        lines.append("- image-feature-extraction")
    else:
        lines += ["- self-supervised-learning"]
        lines += [f"- {_quoted(run.method)}"] if run.method else []
    results = _results(run) if run else []
    if results:
        lines += ["model-index:", f"- name: {_quoted(name)}", "  results:", *results]
    return "\n".join(["---", *lines, "---"])


def _license(license: str) -> list[str]:
    if re.fullmatch(r"[a-z0-9][a-z0-9.\-]{0,39}", license):
        return [f"license: {_quoted(license)}"]
    return ["license: other", *([f"license_name: {_quoted(license)}"] if license else [])]


def _results(run: Run) -> list[str]:
    """The run's own accuracies in per cent, by data set."""
    lines = []
    for data, evals in evaluation.by_data(run).items():
        where = data or str(run.config.get("data", {}).get("source", "")) or "unknown"
        metrics: list[str] = []
        for found in evaluation.accuracies(evals):
            numbers = evaluation.numbers(evaluation.result(found, evaluation.own(run, found)))
            if numbers:
                metrics += [
                    "    - type: accuracy",
                    f"      name: {_quoted(f'Top-1, {evaluation.heading(found)} (%)')}",
                    f"      value: {round(numbers.percent, 2)}",
                ]
        if metrics:
            lines += [
                "  - task:",
                f"      type: {TASK}",
                "    dataset:",
                f"      type: {_quoted(_slug(where))}",
                f"      name: {_quoted(where.removeprefix('tfds:'))}",
                "    metrics:",
                *metrics,
            ]
    return lines


def _slug(source: str) -> str:
    return re.sub(r"[^a-z0-9_.\-]+", "_", source.removeprefix("tfds:").lower()) or "unknown"


def _quoted(value: Any) -> str:
    return json.dumps(clean(str(value), 200), ensure_ascii=False)
