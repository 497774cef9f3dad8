"""Protocol `analogy`: questions such as "Athens is to Greece as Baghdad is to ...?"."""

from typing import Any

import jax
import numpy as np

from ssl_jax.data.source import Facts
from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.evals import word_vectors
from ssl_jax.evals.context import Context
from ssl_jax.evals.protocols import Measured, Needs
from ssl_jax.evals.word_vectors import Question, Vocabulary
from ssl_jax.jobs import files
from ssl_jax.report.figures import analogies

NEEDS = Needs(labels=False, train_features=False, method=True, vectors=True)
ORDER = 12


def absent(options: Any) -> str:
    """Returns why there is nothing to measure."""
    return "" if options.analogy_file else "eval.analogy_file names no file of questions"


def check(options: Any, facts: Facts) -> None:
    """Raises Fault if the questions cannot be read, or no question can be answered."""
    _read(options, Vocabulary(facts["words"]))


def _read(options: Any, vocabulary: Vocabulary) -> tuple[list[Question], np.ndarray]:
    """Returns the questions, and the numbers of their words, int [n, 4]; -1 for an unknown word."""
    path = options.analogy_file
    word_vectors.require_file("analogy_file", path)
    questions = word_vectors.read_questions(path)
    numbers = np.array([[vocabulary[word] for word in q.words] for q in questions])
    if not (numbers >= 0).all(1).any():
        raise Fault(
            f"eval.analogy_file={path}: no question has four words of the vocabulary. Leave "
            "'analogy' out of eval.protocols, or train on more text",
            BAD_DATA,
        )
    return questions, numbers


def run(context: Context) -> Measured:
    """Answers the questions whose four words are known, by 3CosAdd over the whole vocabulary."""
    vocabulary = Vocabulary(context.subject.facts["words"])
    questions, numbers = _read(context.options, vocabulary)
    known = (numbers >= 0).all(1)
    sections = np.array([question.section for question in questions])
    results = {}
    for name, rows in word_vectors.vectors(context).items():
        right = np.zeros(len(questions), bool)
        right[known] = word_vectors.answer(rows, numbers[known, :3]) == numbers[known, 3]
        results[name] = {
            "accuracy": float(right[known].mean()),
            "questions": int(known.sum()),
            "unknown": int((~known).sum()),
            "sections": {
                section: _section(right, known & (sections == section))
                for section in dict.fromkeys(sections.tolist())
            },
        }
        if name == context.subject.name and jax.process_index() == 0 and context.is_own:
            _draw(context, rows, questions, vocabulary)
    return Measured(results)


def _section(right: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    count = int(mask.sum())
    return {"questions": count, "accuracy": float(right[mask].mean()) if count else None}


def _draw(
    context: Context, rows: np.ndarray, questions: list[Question], vocabulary: Vocabulary
) -> None:
    pairs: dict[str, dict[tuple[str, str], tuple[int, int]]] = {}
    for question in questions:
        a, b, c, d = question.words
        for pair in ((a, b), (c, d)):
            numbers = vocabulary[pair[0]], vocabulary[pair[1]]
            if min(numbers) >= 0:
                pairs.setdefault(question.section, {})[pair] = numbers
    folder = files.inside(context.path, "figures")
    path = folder / "analogies.png"
    drawn = analogies.draw(
        {name: list(found.values()) for name, found in pairs.items()},
        rows,
        context.subject.facts["words"],
        path,
    )
    if not drawn:  # a figure of an earlier evaluation would show other vectors
        path.unlink(missing_ok=True)


def describe(context: Context, results: dict[str, Any]) -> dict[str, Any]:
    """Returns the protocol in words and values."""
    del results
    return {
        "questions": context.options.analogy_file.rpartition("/")[2],
        "answer": "the word nearest to b - a + c in cosine similarity, vectors at unit length, "
        "without a, b and c, of the whole vocabulary (arXiv 1301.3781, section 4)",
        "vocabulary": len(context.subject.facts["words"]),
        "score": "share of right answers among the questions whose four words are known",
    }


def heading(protocol: dict[str, Any]) -> str:
    """Returns the title of its column."""
    del protocol
    return "analogies"
