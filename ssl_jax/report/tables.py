"""Section "Evaluation" of a page: numbers, curves over labels and layers, protocols."""

from collections.abc import Mapping
from typing import Any

from ssl_jax.report import evaluation, probes
from ssl_jax.report.evaluation import METHODS, Evaluation, Numbers
from ssl_jax.report.files import Run
from ssl_jax.report.markup import (
    ESCAPE,
    absent,
    figure,
    flat,
    grid,
    plain_row,
    section,
    settings,
    text,
)  # fmt: skip


def evaluations(run: Run) -> str:
    """Everything measured after the training, own test images first, then other data sets."""
    if not run.evals:
        sentence = "Not evaluated yet, or the data has no labels: no eval/*.json in the workdir."
        return section("Evaluation", absent(sentence))
    sections = []
    for data, evals in evaluation.by_data(run).items():
        content = _scores(run, data, evals) + _label_free(evals) + _others(evals)
        content += _probes(run, evals)
        name = f"Transfer to {data.removeprefix('tfds:')}" if data else "Evaluation"
        sections.append(section(name, content))
    return "\n".join(sections)


def _scores(run: Run, data: str, evals: Mapping[str, Evaluation]) -> str:
    scored = list(evaluation.scores(evals).values())
    if not scored:
        return ""
    rows, shown = [], []
    for name in evaluation.feature_sets(scored):
        found = [evaluation.numbers(evaluation.result(e, name)) for e in scored]
        shown += found
        lead = ' class="lead"' if name == run.method else ""
        cells = "".join(map(cell, found))
        rows.append(f"<tr{lead}><th>{ESCAPE(METHODS.get(name, name))}</th>{cells}</tr>")
    when = evaluation.steps(scored)
    first: dict[str, Any] = next(iter(scored[0]["results"].values()))
    sentence = "Top-1 accuracy in per cent" + (f" of step {when}" if when else "")
    if isinstance(first.get("n_test"), int):
        sentence += f" on {first['n_test']:,} test examples"
    sentence += f". {_labels_used(run, data)} {evaluation.spread_note(shown)}"
    return (
        f'<p class="note">{ESCAPE(sentence)} '
        '<a href="#protocols">Protocols</a> are spelled out below.</p>\n'
    ) + grid(["Features", *map(evaluation.heading, scored)], rows)


def cell(found: Numbers | None, *, best: bool = False) -> str:
    """An accuracy with its spread and a bar, as a cell of a table."""
    if found is None:
        return "<td>–</td>"
    spread = ""
    if found.spread is not None:
        unit = " (sd)" if found.kind == "std" else ""
        spread = f' <span class="spread">± {found.spread:.1f}{unit}</span>'
    mark = ' <span class="best">best</span>' if best else ""
    width = min(max(found.percent, 0.0), 100.0)
    return (
        f'<td><span class="value">{found.percent:.1f}</span>{spread}{mark}'
        f'<div class="bar"><i style="width:{width:.1f}%"></i></div></td>'
    )


def _labels_used(run: Run, data: str) -> str:
    if "finetune" in run.config:
        return "Pre-trained without labels, then fine-tuned on some."
    if run.pretrained:
        return "Features are frozen."
    if data:
        return "Features are frozen; their training saw none of these images."
    return "Features are frozen; their training used no label."


def _label_free(evals: Mapping[str, Evaluation]) -> str:
    content = ""
    for found in evaluation.of_kind(evals, "label_free").values():
        sets = evaluation.feature_sets([found])
        rows = [plain_row(name, rest) for name, *rest in evaluation.label_free_rows(found, sets)]
        head = ["Without labels", *(METHODS.get(s, s) for s in sets), "What it is"]
        content += grid(head, rows, kind="plain") if rows else ""
    return content


def _others(evals: Mapping[str, Evaluation]) -> str:
    """Kinds that are not known here: as they are written."""
    found = evaluation.others(evals).values()
    return "".join(
        f"<h3>{ESCAPE(evaluation.heading(e) or 'Unnamed')}</h3>{settings(flat(e))}" for e in found
    )


def _probes(run: Run, evals: Mapping[str, Evaluation]) -> str:
    figures = ""
    for kind in evaluation.CURVES:
        for name, found in evaluation.of_kind(evals, kind).items():
            path = run.workdir / "figures" / f"{name}.png"
            if probes.draw(found, run.method, path):
                caption = probes.caption(found)
                figures += figure(path.read_bytes(), evaluation.heading(found), caption)
    return f'<div class="halves">{figures}</div>' if figures else ""


def protocols(run: Run) -> str:
    """How every number was made."""
    if not run.evals:
        return ""
    tables = []
    for data, evals in evaluation.by_data(run).items():
        for found in evals.values():
            name = evaluation.heading(found) + (f", {text(data)}" if data else "")
            tables.append(f"<h3>{ESCAPE(name)}</h3>{settings(_protocol(found))}")
    return f'<div id="protocols">{section("Protocols", "".join(tables))}</div>'


def _protocol(found: Evaluation) -> dict[str, Any]:
    protocol = found.get("protocol")
    return protocol if isinstance(protocol, dict) else {}
