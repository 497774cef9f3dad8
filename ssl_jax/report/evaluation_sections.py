"""Page sections "Evaluation" and "Protocols": tables, and curves over labels and layers."""

from collections.abc import Mapping

from ssl_jax.jobs.json_files import is_number
from ssl_jax.report import evaluations, html_elements
from ssl_jax.report.accuracies import Accuracy, accuracy_of, spread_note
from ssl_jax.report.display_names import METHOD_NAMES, evaluation_name
from ssl_jax.report.evaluations import Evaluation, result_of
from ssl_jax.report.figures import accuracy_curves
from ssl_jax.report.formatting import as_text, flatten
from ssl_jax.report.html_elements import escape, section, settings_table
from ssl_jax.report.run_files import Run, protocol_of


def evaluation_sections(run: Run) -> str:
    """Returns a section for the run's own test data, then one for each other data set."""
    if not run.evals:
        sentence = "The run is not evaluated yet, or its data has no labels: no eval/*.json exists."
        return section("Evaluation", html_elements.placeholder(sentence))
    sections = []
    for data, evals in evaluations.by_data(run).items():
        content = _accuracy_table(run, evals) + _label_free_tables(evals)
        content += _unknown_kinds(evals) + _curves(run, evals) + _doubts(evals)
        heading = "Transfer to" if evaluations.is_transfer(evals) else "Evaluation on"
        name = data.removeprefix("tfds:")
        sections.append(section(f"{heading} {name}" if name else "Evaluation", content))
    return "\n".join(sections)


def _accuracy_table(run: Run, evals: Mapping[str, Evaluation]) -> str:
    columns = list(evaluations.with_one_accuracy(evals).values())
    if not columns:
        return ""
    rows, shown = [], []
    for name in evaluations.feature_sets(columns):
        accuracies = [accuracy_of(result_of(evaluation, name)) for evaluation in columns]
        shown += accuracies
        lead = ' class="lead"' if name == run.method else ""
        cells = "".join(map(accuracy_cell, accuracies))
        rows.append(f"<tr{lead}><th>{escape(METHOD_NAMES.get(name, name))}</th>{cells}</tr>")
    step = evaluations.evaluated_steps(columns)
    first = next(result for result in columns[0]["results"].values() if accuracy_of(result))
    sentence = "Top-1 accuracy in per cent" + (f" at step {step}" if step else "")
    if is_number(first.get("n_test")):
        sentence += f" on {first['n_test']:,} test examples"
    labels_used = _labels_used(run, transfer=evaluations.is_transfer(evals))
    sentence += f". {labels_used} {spread_note(shown)}"
    return (
        f'<p class="note">{escape(sentence)} '
        'See <a href="#protocols">Protocols</a> below for the details.</p>\n'
    ) + html_elements.table(["Features", *map(evaluation_name, columns)], rows)


def accuracy_cell(accuracy: Accuracy | None, *, best: bool = False) -> str:
    """Returns a table cell with an accuracy, its spread and a bar.

    Args:
      accuracy: None gives an empty cell.
      best: add the mark "best".
    """
    if accuracy is None:
        return "<td>–</td>"
    spread = ""
    if accuracy.spread is not None:
        unit = " (sd)" if accuracy.spread_kind == "std" else ""
        spread = f' <span class="spread">± {accuracy.spread:.1f}{unit}</span>'
    mark = ' <span class="best">best</span>' if best else ""
    width = min(max(accuracy.percent, 0.0), 100.0)
    return (
        f'<td><span class="value">{accuracy.percent:.1f}</span>{spread}{mark}'
        f'<div class="bar"><i style="width:{width:.1f}%"></i></div></td>'
    )


def _labels_used(run: Run, *, transfer: bool) -> str:
    if "finetune" in run.config:
        return "The encoder was pre-trained without labels, then fine-tuned on some."
    if run.pretrained:
        return "Features are frozen."
    if str(run.config.get("data", {}).get("source", "")).startswith("captions:"):
        return "Features are frozen; their training read captions that were written from labels."
    if transfer:
        return f"Features are frozen; their training saw none of these {run.noun}s."
    return "Features are frozen; their training used no label."


def _doubts(evals: Mapping[str, Evaluation]) -> str:
    """Returns a note for each reason to doubt an accuracy."""
    return "".join(
        f'<p class="note">{escape(f"{evaluation_name(evaluation)}: {sentence}")}</p>\n'
        for evaluation in evals.values()
        for sentence in evaluations.doubts(evaluation)
    )


def _label_free_tables(evals: Mapping[str, Evaluation]) -> str:
    content = ""
    for evaluation in evaluations.with_measures(evals).values():
        names = evaluations.feature_sets([evaluation])
        rows = [
            html_elements.text_row(measure, cells)
            for measure, *cells in evaluations.label_free_rows(evaluation, names)
        ]
        head = ["Without labels", *(METHOD_NAMES.get(name, name) for name in names), "What it is"]
        content += html_elements.table(head, rows, kind="plain") if rows else ""
    return content


def _unknown_kinds(evals: Mapping[str, Evaluation]) -> str:
    """Shows the fields of evaluations for which the report has no table or figure."""
    return "".join(
        f"<h3>{escape(evaluation_name(evaluation) or 'Unnamed')}</h3>"
        f"{settings_table(flatten(evaluation))}"
        for evaluation in evaluations.of_unknown_kind(evals).values()
    )


def _curves(run: Run, evals: Mapping[str, Evaluation]) -> str:
    figures = ""
    for name, evaluation in evaluations.with_curves(evals).items():
        path = run.workdir / "figures" / f"{name}.png"
        if accuracy_curves.draw(evaluation, run.method, path):
            title, caption = evaluation_name(evaluation), accuracy_curves.caption(evaluation)
            figures += html_elements.figure(path.read_bytes(), title, caption, kind="half")
    return f'<div class="halves">{figures}</div>' if figures else ""


def protocol_section(run: Run) -> str:
    """Returns the protocol of each evaluation; "" without evaluations."""
    if not run.evals:
        return ""
    tables = []
    for data, evals in evaluations.by_data(run).items():
        for evaluation in evals.values():
            name = evaluation_name(evaluation) + (f", {as_text(data)}" if data else "")
            tables.append(f"<h3>{escape(name)}</h3>{settings_table(protocol_of(evaluation))}")
    return f'<div id="protocols">{section("Protocols", "".join(tables))}</div>'
