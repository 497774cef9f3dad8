"""Model card of exported weights: Markdown with the YAML header of the Hugging Face Hub."""

import re
from collections.abc import Mapping
from typing import Any

from ssl_jax.jobs.json_files import is_number
from ssl_jax.report import evaluations, model_card_header
from ssl_jax.report.accuracies import accuracy_of, format_accuracy, spread_note
from ssl_jax.report.display_names import METHOD_NAMES, data_name, evaluation_name
from ssl_jax.report.evaluations import Evaluation, result_of
from ssl_jax.report.formatting import as_text, flatten, one_line, without_folders
from ssl_jax.report.run_files import Run, protocol_of

RECIPE = ("method", "model", "augment", "optim", "train", "finetune")  # sections of the config
HOUSEKEEPING = ("train.checkpoint_every", "train.keep", "train.log_every", "augment.placement")
PROTOCOL = ("classifier", "labels", "draws", "test images", "view", "score")
OFF: tuple[Any, ...] = (None, "", {}, [], (), 0, False)


def markdown(
    run: Run | None, *, name: str, license: str, usage: str, facts: Mapping[str, str]
) -> str:
    """Returns the model card, which becomes the README.md of an export.

    Escapes all text from the run, so that the text cannot add headings, links, code or table rows.
    Leaves out folders of the training machine (`data.dir` and similar fields).

    Args:
      run: run that trained the weights; None if the weights come from elsewhere.
      name: name of the model.
      license: licence as the Hub writes it ("apache-2.0"), or in words.
      usage: Python code that loads the weights.
      facts: what is known about the files: architecture, input, preprocessing. The entry
        "library_name" goes into the header instead.
    """
    shown = {key: value for key, value in facts.items() if key != "library_name"}
    library = facts.get("library_name", "")
    no_evaluation = ("## Evaluation", "None is known to this card.")
    parts = [
        model_card_header.yaml(run, name=name, license=license, library=library),
        f"# {escape(name)}",
        _introduction(run),
        "## Use",
        fenced(usage, "python"),
        "## Facts",
        table(["", ""], [[key, value] for key, value in shown.items()]),
        *(_training(run) if run else ()),
        *(_evaluation(run) if run else no_evaluation),
        "## Limits",
        "\n".join(f"* {sentence}" for sentence in _limits(run)),
        "## Licence",
        escape(license) or "Not stated. Ask the source of these weights before you use them.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(value: Any, limit: int = 300) -> str:
    """Escapes a value for Markdown: one line of at most `limit` characters without markup."""
    line = one_line(value if isinstance(value, str) else as_text(value), limit)
    line = re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", line)
    line = re.sub(r"^([-+=])", r"\\\1", line)  # would start a list, a rule or an underline
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", line)  # would start a numbered list


def fenced(lines: str, language: str = "") -> str:
    """Returns a code block; its fence is longer than any run of backticks in the code."""
    longest = max(map(len, re.findall(r"`+", lines)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{lines.rstrip()}\n{fence}"


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Returns a table whose cells are escaped; "" without rows."""
    if not rows:
        return ""
    lines = [[escape(cell, 700) for cell in row] for row in [head, *rows]]
    lines[1:1] = [["---"] * len(head)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _introduction(run: Run | None) -> str:
    if run is None or run.pretrained:
        return (
            "An image encoder in the layout of ssl\\_jax. This card does not record who trained it "
            "or on which data."
        )
    method = METHOD_NAMES.get(run.method, run.method) or "self-supervised learning"
    source = f" on {escape(data_name(run))}" if data_name(run) else ""
    if "finetune" in run.config:
        return (
            f"An image encoder, pre-trained by {escape(method)} and then fine-tuned with "
            f"labels{source}, with ssl\\_jax."
        )
    return f"An image encoder, trained without labels by {escape(method)}{source}, with ssl\\_jax."


def _training(run: Run) -> list[str]:
    if run.pretrained:
        return []
    rows: list[list[Any]] = []
    if source := data_name(run):
        count = run.metadata.get("train_images")
        images = f", {count:,} {run.noun}s" if is_number(count) else ""
        split = run.config.get("data", {}).get("split", "")
        rows.append(["data", source + (f" ({split}{images})" if split else "")])
    if run.metrics:
        rows.append(["steps", f"{run.metrics[-1]['step']:,}"])
    if device := run.metadata.get("device"):
        rows.append(["device", f"{run.metadata.get('devices', 1)} × {device}"])
    recipe = {s: run.config[s] for s in RECIPE if isinstance(run.config.get(s), dict)}
    rows += [
        [key, without_folders(as_text(value))]
        for key, value in flatten(recipe).items()
        if (value not in OFF or key == "train.seed") and key not in HOUSEKEEPING
    ]
    return [
        "## Training",
        "Config fields that are off or 0 are left out.",
        table(["", ""], rows),
    ]


def _evaluation(run: Run) -> list[str]:
    parts = ["## Evaluation"]
    for data, evals in evaluations.by_data(run).items():
        name = data.removeprefix("tfds:") or data_name(run)
        heading = "Transfer to" if evaluations.is_transfer(evals) else "On"
        parts.append(f"### {heading} {escape(name) or 'its own data'}")
        parts += [_accuracies(run, evals), _label_free(evals)]
    if len(parts) == 1:
        parts.append("Not evaluated.")
    return parts


def _accuracies(run: Run, evals: Mapping[str, Evaluation]) -> str:
    """Returns a table: for each evaluation the accuracies, the baselines and the protocol."""
    rows: list[list[Any]] = []
    shown, previous = [], ""
    baselines = evaluations.baselines_in(evals.values())
    for evaluation in evaluations.split_by_shots(evals):
        names = (evaluations.own_features(run, evaluation), *baselines)
        accuracies = [accuracy_of(result_of(evaluation, name)) for name in names]
        shown += accuracies
        cells = [format_accuracy(accuracy) for accuracy in accuracies]
        protocol = _protocol(evaluation)
        same = protocol == previous
        rows.append([evaluation_name(evaluation), *cells, "as above" if same else protocol])
        previous = protocol
    if not rows:
        return ""
    step = evaluations.evaluated_steps(evals.values())
    sentence = "Top-1 accuracy in per cent" + (f", at step {step}. " if step else ". ")
    head = ["Evaluation", "These weights", *baselines, "Protocol"]
    return f"{sentence}{spread_note(shown)}".strip() + "\n\n" + table(head, rows)


def _protocol(evaluation: Evaluation) -> str:
    fields = protocol_of(evaluation)
    shown = (f"{k}: {as_text(fields[k])}" for k in PROTOCOL if fields.get(k) not in OFF)
    return without_folders("; ".join(shown))


def _label_free(evals: Mapping[str, Evaluation]) -> str:
    tables = []
    for evaluation in evaluations.with_measures(evals).values():
        names = evaluations.feature_sets([evaluation])
        rows = evaluations.label_free_rows(evaluation, names)
        if rows:
            titles = [METHOD_NAMES.get(name, name) for name in names]
            tables.append(table(["Without labels", *titles, "What it is"], rows))
    return "\n\n".join(tables)


def _limits(run: Run | None) -> list[str]:
    limits = [
        "The encoder gives features, not decisions. Test what you build on them on your data and "
        "with the people it is meant for. Bias and robustness were not tested.",
    ]
    if run is None:
        return ["No number on this card was measured by a run of ssl\\_jax.", *limits]
    if not run.pretrained and (source := data_name(run)):
        limits.append(
            f"The encoder was trained only on {escape(source)}. Its quality on other images is "
            "unknown."
        )
    if run.evals:
        limits.append(
            "The numbers are from one training run. Compare them only with numbers under the same "
            "protocol, which the table shows. Published numbers mostly use another protocol."
        )
    if weak := evaluations.not_above_baselines(run):
        limits.append(f"Not above a baseline in: {escape(', '.join(weak))}.")
    return limits
