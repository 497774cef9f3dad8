"""Word vectors at unit length, and the files of questions that they answer."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ssl_jax.data.vocabulary import normal
from ssl_jax.errors import BAD_DATA, MISSING_INPUT, Fault
from ssl_jax.evals.context import Context
from ssl_jax.evals.subjects import TRAINED, UNTRAINED

BATCH = 512  # questions answered at once
Pair = tuple[str, str, float]


class Vocabulary:
    """Numbers of words. A word that is unknown as it is written counts in lower case and NFC."""

    def __init__(self, words: np.ndarray) -> None:
        self.words = words
        self._numbers = {word: number for number, word in enumerate(words.tolist())}

    def __getitem__(self, word: str) -> int:
        """Returns the number of a word; -1 if it is unknown."""
        return self._numbers.get(word, self._numbers.get(normal(word), -1))


class Question(NamedTuple):
    """a is to b as c is to d."""

    section: str
    words: tuple[str, str, str, str]


def vectors(context: Context) -> dict[str, np.ndarray]:
    """Returns the vectors at unit length, float32 [V, d], of the trained and untrained method."""
    subject = context.subject
    assert subject.vectors is not None, "the caller asks first whether the method embeds words"
    compute = jax.jit(subject.vectors)
    names = {TRAINED: subject.name, UNTRAINED: UNTRAINED}
    return {
        names[kind]: unit(np.asarray(compute(weights))) for kind, weights in subject.weights.items()
    }


def unit(rows: np.ndarray) -> np.ndarray:
    """Scales rows [n, d] to unit length; a zero row stays zero."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def answer(rows: np.ndarray, questions: np.ndarray) -> np.ndarray:
    """Returns the word that answers each question, int64 [q]: the nearest to b - a + c.

    Args:
      rows: unit vectors [V, d].
      questions: int [q, 3], the words a, b and c, which are no answers.

    Source: Mikolov et al. (arXiv 1301.3781), section 4; `compute-accuracy.c`.
    """
    answers = [np.zeros(0, np.int64)]
    for start in range(0, len(questions), BATCH):
        asked = questions[start : start + BATCH]
        a, b, c = (rows[asked[:, i]] for i in range(3))
        similarity = unit(b - a + c) @ rows.T
        similarity[np.arange(len(asked))[:, None], asked] = -np.inf
        answers.append(similarity.argmax(1))
    return np.concatenate(answers)


def nearest(rows: np.ndarray, words: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest words, int64 [n, count], and their cosines, of the given words int [n].

    A word is no neighbour of itself.
    """
    count = min(count, len(rows) - 1)
    found, cosines = [np.zeros((0, count), np.int64)], [np.zeros((0, count), rows.dtype)]
    for start in range(0, len(words), BATCH):
        asked = words[start : start + BATCH]
        similarity = rows[asked] @ rows.T
        similarity[np.arange(len(asked)), asked] = -np.inf
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
        found.append(order)
        cosines.append(np.take_along_axis(similarity, order, 1))
    return np.concatenate(found), np.concatenate(cosines)


def read_questions(path: str) -> list[Question]:
    """Reads questions in the format of Google's questions-words.txt.

    A line ": NAME" starts a section, and every other line holds four words.

    Raises:
      Fault: the file is missing, or a line has another form.
    """
    section, questions = "", []
    for number, line in _lines(path):
        parts = line.split()
        if parts[0].startswith(":"):
            section = line.lstrip(": ")
        elif len(parts) == 4:
            a, b, c, d = parts
            questions.append(Question(section, (a, b, c, d)))
        else:
            message = f"{path}, line {number}: four words or ': SECTION' are expected, not {line!r}"
            raise Fault(message, BAD_DATA)
    if not questions:
        raise Fault(f"{path} holds no question", BAD_DATA)
    return questions


def read_pairs(path: str) -> list[Pair]:
    """Reads pairs of words with scores: "word word score" in each line.

    Tabs, commas or spaces divide the columns. Lines that start with "#" and a first line without a
    number are skipped.

    Raises:
      Fault: the file is missing, or a line has another form.
    """
    pairs: list[Pair] = []
    for number, line in _lines(path):
        parts = line.replace(",", " ").split()
        if line.startswith("#"):
            continue
        try:
            first, second, score = parts[0], parts[1], float(parts[2])
        except (IndexError, ValueError):
            if number == 1:
                continue
            message = f"{path}, line {number}: two words and a number are expected, not {line!r}"
            raise Fault(message, BAD_DATA) from None
        if not math.isfinite(score):
            raise Fault(f"{path}, line {number}: the score {parts[2]!r} is not finite", BAD_DATA)
        pairs.append((first, second, score))
    if not pairs:
        raise Fault(f"{path} holds no pair of words", BAD_DATA)
    return pairs


def require_file(field: str, path: str) -> None:
    """Raises Fault if the file that an option of `eval` names does not exist."""
    if not Path(path).expanduser().is_file():
        raise Fault(f"eval.{field}={path}: no such file", MISSING_INPUT)


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Yields (number, line) of the lines that are not blank."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Fault(f"{path} is not UTF-8 text: {error.reason}", BAD_DATA) from error
    except OSError as error:
        raise Fault(f"cannot read {path}: {error.strerror}", MISSING_INPUT) from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()
