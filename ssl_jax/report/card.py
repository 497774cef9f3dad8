"""The model card of exported weights: Markdown with the YAML header of the Hugging Face Hub."""

import re
from collections.abc import Mapping
from typing import Any

from ssl_jax.report import card_header, evaluation
from ssl_jax.report.evaluation import BASELINES, METHODS, Evaluation
from ssl_jax.report.files import Run
from ssl_jax.report.markup import flat, text
from ssl_jax.report.plain import clean

RECIPE = ("method", "model", "augment", "optim", "train", "finetune")  # sections of the config
HOUSEKEEPING = ("train.checkpoint_every", "train.keep", "train.log_every", "augment.placement")
PROTOCOL = ("classifier", "labels", "draws", "test images", "view", "score")
OFF: tuple[Any, ...] = (None, "", {}, [], (), 0, False)


def markdown(
    run: Run | None, *, name: str, license: str, usage: str, facts: Mapping[str, str]
) -> str:
    """The card, README.md of an export.

    Every text of others is escaped: it makes no heading, link, code or row of its own. Folders of
    the machine that trained (`data.dir` and the like) are left out.

    Args:
      run: where the weights come from; None when no run of ours made them.
      name: of the model.
      license: as the Hub writes it ("apache-2.0"), or in words.
      usage: Python that loads the weights.
      facts: what is known of the files: architecture, input, preprocessing. The entry
        "library_name" goes into the header instead.
    """
    shown = {key: value for key, value in facts.items() if key != "library_name"}
    parts = [
        card_header.yaml(run, name=name, license=license, library=facts.get("library_name", "")),
        f"# {escape(name)}",
        _introduction(run),
        "## Use",
        fenced(usage, "python"),
        "## Facts",
        table(["", ""], [[key, value] for key, value in shown.items()]),
        *(_training(run) if run else ()),
        *(_evaluation(run) if run else ("## Evaluation", "None that this card knows of.")),
        "## Limits",
        "\n".join(f"* {sentence}" for sentence in _limits(run)),
        "## Licence",
        escape(license) or "Not stated: ask who gave you these weights before you use them.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(value: Any, limit: int = 300) -> str:
    """Text as Markdown shows it: on one line, of at most `limit` characters, without meaning."""
    line = clean(value if isinstance(value, str) else text(value), limit)
    line = re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", line)
    line = re.sub(r"^([-+=])", r"\\\1", line)  # a list, a rule or an underline
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", line)  # a numbered list


def fenced(lines: str, language: str = "") -> str:
    """A block of code, whatever backticks are in it."""
    longest = max(map(len, re.findall(r"`+", lines)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{lines.rstrip()}\n{fence}"


def table(head: list[str], rows: list[list[Any]]) -> str:
    """A table whose cells are escaped; "" without rows."""
    if not rows:
        return ""
    lines = [[escape(cell, 700) for cell in row] for row in [head, *rows]]
    lines[1:1] = [["---"] * len(head)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _introduction(run: Run | None) -> str:
    if run is None or run.pretrained:
        return (
            "An encoder of images, in the layout of ssl\\_jax. Who trained it, and on what, is not "
            "recorded here."
        )
    how = METHODS.get(run.method, run.method) or "self-supervised learning"
    source = f" on {escape(evaluation.data(run))}" if evaluation.data(run) else ""
    if "finetune" in run.config:
        return (
            f"An encoder of images, pre-trained by {escape(how)} and then fine-tuned with "
            f"labels{source}, with ssl\\_jax."
        )
    return f"An encoder of images, trained without labels by {escape(how)}{source}, with ssl\\_jax."


def _training(run: Run) -> list[str]:
    if run.pretrained:
        return []
    rows: list[list[Any]] = []
    if source := evaluation.data(run):
        count = run.metadata.get("train_images")
        images = f", {count:,} images" if isinstance(count, int) else ""
        split = run.config.get("data", {}).get("split", "")
        rows.append(["data", source + (f" ({split}{images})" if split else "")])
    if run.metrics:
        rows.append(["steps", f"{run.metrics[-1]['step']:,}"])
    if device := run.metadata.get("device"):
        rows.append(["device", f"{run.metadata.get('devices', 1)} × {device}"])
    recipe = {s: run.config[s] for s in RECIPE if isinstance(run.config.get(s), dict)}
    rows += [
        [key, _public(text(value))]
        for key, value in flat(recipe).items()
        if (value not in OFF or key == "train.seed") and key not in HOUSEKEEPING
    ]
    return [
        "## Training",
        "Fields of the config that are off or 0 are left out.",
        table(["", ""], rows),
    ]


def _public(value: str) -> str:
    """Without the folders of the machine that trained: of a path its last part."""
    return re.sub(r"(?<![\w.:/])[~/]/?(?:[^\s/]+/)+([^\s/]+)", r"\1", value)


def _evaluation(run: Run) -> list[str]:
    parts = ["## Evaluation"]
    for data, evals in evaluation.by_data(run).items():
        where = data.removeprefix("tfds:") or evaluation.data(run)
        parts.append(f"### {'Transfer to' if data else 'On'} {escape(where) or 'its own data'}")
        parts += [_scores(run, evals), _label_free(evals)]
    if len(parts) == 1:
        parts.append("Not evaluated.")
    return parts


def _scores(run: Run, evals: Mapping[str, Evaluation]) -> str:
    """A row for every evaluation: own number, those of the baselines, how they were made."""
    rows: list[list[Any]] = []
    shown, before = [], ""
    for found in evaluation.accuracies(evals):
        sets = (evaluation.own(run, found), *BASELINES)
        numbers = [evaluation.numbers(evaluation.result(found, name)) for name in sets]
        shown += numbers
        cells = [evaluation.written(one) for one in numbers]
        protocol = _protocol(found)
        same = protocol == before
        rows.append([evaluation.heading(found), *cells, "as above" if same else protocol])
        before = protocol
    if not rows:
        return ""
    when = evaluation.steps(evals.values())
    sentence = "Top-1 accuracy in per cent" + (f", of step {when}. " if when else ". ")
    head = ["Evaluation", "These weights", *BASELINES, "Protocol"]
    return f"{sentence}{evaluation.spread_note(shown)}".strip() + "\n\n" + table(head, rows)


def _protocol(found: Evaluation) -> str:
    protocol = found.get("protocol")
    fields = protocol if isinstance(protocol, dict) else {}
    shown = (f"{k}: {text(fields[k])}" for k in PROTOCOL if fields.get(k) not in OFF)
    return _public("; ".join(shown))


def _label_free(evals: Mapping[str, Evaluation]) -> str:
    tables = []
    for found in evaluation.of_kind(evals, "label_free").values():
        sets = evaluation.feature_sets([found])
        rows = evaluation.label_free_rows(found, sets)
        if rows:
            named = [METHODS.get(name, name) for name in sets]
            tables.append(table(["Without labels", *named, "What it is"], rows))
    return "\n\n".join(tables)


def _limits(run: Run | None) -> list[str]:
    limits = [
        "The encoder gives features, not decisions: what is built on them is to be tested on the "
        "data and for the people it is meant for. No test of bias or of robustness was made.",
    ]
    if run is None:
        return ["Nothing on this card was measured by a run of ssl\\_jax.", *limits]
    if not run.pretrained and (source := evaluation.data(run)):
        limits.append(f"It has seen {escape(source)} alone: other images are another question.")
    if run.evals:
        limits.append(
            "The numbers are of one training. They compare with others only under one protocol, "
            "the one beside each number; published numbers mostly have another."
        )
    if weak := evaluation.not_above_baselines(run):
        limits.append(f"Not above a baseline in: {escape(', '.join(weak))}.")
    return limits
