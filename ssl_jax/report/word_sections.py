"""Page section of word vectors: analogies, similarity, neighbours."""

from typing import Any

from ssl_jax.jobs.json_files import is_number
from ssl_jax.report import evaluations, html_elements
from ssl_jax.report.evaluations import Evaluation, own_features, result_of
from ssl_jax.report.html_elements import figure, note, section
from ssl_jax.report.run_files import Run, read_figure

SHOWN = 8  # neighbours of a word


def word_section(run: Run) -> str:
    """Returns tables of analogies, similarity and neighbours; "" for a run without word vectors."""
    evals = evaluations.by_data(run).get("", {})
    parts = {"analogy": _analogies, "similarity": _similarity, "neighbours": _neighbours}
    content = ""
    for evaluation in evals.values():
        part = parts.get(evaluations.evaluation_kind(evaluation))
        result = result_of(evaluation, own_features(run, evaluation))
        if part and isinstance(result, dict):
            content += part(run, evaluation, result)
    return section("Words", content) if content else ""


def _analogies(run: Run, evaluation: Evaluation, result: dict[str, Any]) -> str:
    del evaluation
    sections = result.get("sections")
    if not isinstance(sections, dict):
        return ""
    rows = [
        html_elements.text_row(str(name), [f"{numbers['questions']:,}", _percent(numbers)])
        for name, numbers in sections.items()
        if isinstance(numbers, dict) and is_number(numbers.get("questions"))
    ]
    known, unknown = result.get("questions", 0), result.get("unknown", 0)
    sentence = f"{known:,} questions have four known words; {unknown:,} have not."
    text = "<h3>Analogies</h3>" + note(sentence)
    text += html_elements.table(["Section", "Questions", "Right, %"], rows, kind="plain")
    if picture := read_figure(run, "analogies"):
        caption = (
            "An arrow joins the words of each pair, on the first two principal components of the "
            "drawn vectors at unit length. Parallel arrows of equal length mean that one "
            "difference of vectors expresses the relation. Two dimensions show only a part of the "
            "vectors."
        )
        text += figure(picture, "Parallel analogies", caption)
    return text


def _percent(numbers: dict[str, Any]) -> str:
    accuracy = numbers.get("accuracy")
    return f"{100 * accuracy:.1f}" if is_number(accuracy) else "–"


def _similarity(run: Run, evaluation: Evaluation, result: dict[str, Any]) -> str:
    del run, evaluation
    value, pairs = result.get("spearman"), result.get("pairs")
    if not is_number(value) or not is_number(pairs):
        return ""
    text = f"Spearman's correlation with people's scores: {value:.3f}, over {pairs:,} pairs."
    return "<h3>Similarity</h3>" + note(text)


def _neighbours(run: Run, evaluation: Evaluation, result: dict[str, Any]) -> str:
    del run, evaluation
    found = result.get("neighbours")
    if not isinstance(found, dict):
        return ""
    rows = [html_elements.text_row(str(word), [_listed(near)]) for word, near in found.items()]
    head = ["Word", "Nearest words, with their cosine"]
    return "<h3>Neighbours</h3>" + html_elements.table(head, rows, kind="plain")


def _listed(near: Any) -> str:
    pairs = (pair for pair in near if isinstance(pair, list) and len(pair) == 2)
    return ", ".join(f"{word} {cosine:.2f}" for word, cosine in list(pairs)[:SHOWN])
