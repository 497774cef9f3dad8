"""Divides text into words, and numbers the words of a vocabulary by their frequency."""

import re
from array import array
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ssl_jax.errors import BAD_CONFIG, BAD_DATA, Fault

RULES = ("words", "spaces")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def tokenise(text: str, rule: str) -> list[str]:
    """Divides text into words.

    Args:
      text: any text.
      rule: "words": runs of letters and digits, with apostrophes inside, in lower case. "spaces":
        whatever white space divides, unchanged, as `word2vec.c` reads text.
    """
    return _WORD.findall(text.lower()) if rule == "words" else text.split()


class Encoded(NamedTuple):
    """Documents as numbers of words."""

    words: np.ndarray
    """str [V], by falling count, equal counts in order of code points."""

    counts: np.ndarray
    """int64 [V], number of times that each word occurs in the text of the vocabulary."""

    tokens: np.ndarray
    """int32 [n], all documents one after the other, without words outside the vocabulary."""

    offsets: np.ndarray
    """int64 [documents + 1], where each document starts in `tokens`."""


class Vocabulary:
    """Collects the words of documents.

    Args:
      facts: "words" and "counts" of a known vocabulary; None builds one.
    """

    def __init__(self, facts: Mapping[str, np.ndarray] | None = None) -> None:
        self._facts = facts
        self._numbers: dict[str, int] = {}
        self._tokens = array("i")
        self._offsets = array("q", [0])

    def add(self, words: Iterable[str]) -> None:
        """Adds a document."""
        numbers = self._numbers
        self._tokens.extend(numbers.setdefault(word, len(numbers)) for word in words)
        self._offsets.append(len(self._tokens))

    def encode(self, *, min_count: int, max_words: int, where: str) -> Encoded:
        """Returns all documents.

        Args:
          min_count: words of a new vocabulary occur at least so often.
          max_words: words of a new vocabulary, at most; the most frequent are kept.
          where: location of the text, for the message.

        Raises:
          Fault: a new vocabulary would have fewer than two words.
        """
        found = list(self._numbers)
        tokens = np.array(self._tokens, np.int32)
        if self._facts is None:
            words, counts = _choose(found, tokens, min_count, max_words, where)
        else:
            words, counts = self._facts["words"], self._facts["counts"]
        number = {word: i for i, word in enumerate(words.tolist())}
        new = np.array([number.get(word, -1) for word in found] or [-1], np.int32)
        tokens = new[tokens] if len(tokens) else tokens
        kept = np.concatenate([[0], np.cumsum(tokens >= 0)])
        offsets = kept[np.array(self._offsets)].astype(np.int64)
        return Encoded(words, counts, tokens[tokens >= 0], offsets)


def _choose(
    found: list[str], tokens: np.ndarray, min_count: int, max_words: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(tokens, minlength=len(found))
    frequent = [i for i in range(len(found)) if counts[i] >= min_count]
    frequent.sort(key=lambda i: (-counts[i], found[i]))
    if len(frequent) < 2:
        raise Fault(
            f"{where}: {len(frequent)} of {len(found):,} different words occur {min_count} times "
            "or more, and a vocabulary needs two. Lower data.min_count, or add text",
            BAD_DATA if found else BAD_CONFIG,
        )
    chosen = frequent[:max_words]
    return np.array([found[i] for i in chosen], str), counts[chosen].astype(np.int64)
