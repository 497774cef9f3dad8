"""Divides text into words, and numbers the words of a vocabulary by their frequency."""

import functools
import logging
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ssl_jax.errors import BAD_CONFIG, BAD_DATA, Fault, count

RULES = ("words", "spaces")
_log = logging.getLogger(__name__)
LONGEST = 100  # characters of a word
_SPACE = re.compile(r"\s")
_JOINERS = "\u200c\u200d"  # they stand inside words of Persian and of Indian languages
_PLANES = 0x20000  # marks of letters have lower code points
_PIECE = 1 << 16  # characters or words that are processed at once, to save memory


def tokenise(text: str, rule: str) -> Iterator[str]:
    """Divides text into words.

    Args:
      text: any text.
      rule: "words": runs of letters, digits and their combining marks, with apostrophes inside, in
        lower case and in the normal form NFC. "spaces": whatever white space divides, unchanged, as
        `word2vec.c` reads text.
    """
    words = _words() if rule == "words" else None
    start = 0
    while start < len(text):
        space = _SPACE.search(text, start + _PIECE)
        end = space.start() if space else len(text)
        piece = text[start:end]
        yield from words.findall(normal(piece)) if words else piece.split()
        start = end


def normal(text: str) -> str:
    """Returns text in lower case and in the normal form NFC."""
    return unicodedata.normalize("NFC", text.lower())


@functools.cache
def _words() -> re.Pattern[str]:
    marks = "".join(c for c in map(chr, range(_PLANES)) if unicodedata.category(c) in ("Mn", "Mc"))
    # The lookahead is quick to tell that a space or an ASCII character is no mark.
    word = rf"[^\W_]+(?:(?=[\u0300-\U0010ffff])[{re.escape(marks)}{_JOINERS}]+[^\W_]*)*"
    return re.compile(rf"{word}(?:['’]{word})*")


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
        """Returns all documents. Call it once: the numbers of the words are replaced in place.

        Args:
          min_count: words of a new vocabulary occur at least so often, and have at most `LONGEST`
            characters.
          max_words: words of a new vocabulary, at most; the most frequent are kept.
          where: location of the text, for the message.

        Raises:
          Fault: a new vocabulary would have fewer than two words.
        """
        found = list(self._numbers)
        tokens = np.frombuffer(self._tokens, np.int32) if self._tokens else np.zeros(0, np.int32)
        if self._facts is None:
            words, counts = _choose(found, tokens, min_count, max_words, where)
        else:
            words, counts = self._facts["words"], self._facts["counts"]
        number = {word: i for i, word in enumerate(words.tolist())}
        new = np.array([number.get(word, -1) for word in found] or [-1], np.int32)
        offsets = np.array(self._offsets, np.int64)
        return Encoded(words, counts, _renumber(tokens, new, offsets), offsets)


def _renumber(tokens: np.ndarray, new: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Replaces tokens by new[token], without those that are then -1; all arrays in place.

    Pieces keep the memory at that of `tokens` itself.

    Args:
      tokens: int32 [n].
      new: int32, the new number of each old one.
      offsets: int64 [documents + 1], places in `tokens`; they move with the words.

    Returns:
      The first part of `tokens`, which holds the new numbers.
    """
    end, document = 0, 0
    for start in range(0, len(tokens), _PIECE):
        piece = new[tokens[start : start + _PIECE]]
        before = np.concatenate([[0], np.cumsum(piece >= 0)])
        here = document + int(np.searchsorted(offsets[document:], start + len(piece), "left"))
        offsets[document:here] = end + before[offsets[document:here] - start]
        tokens[end : end + before[-1]] = piece[piece >= 0]
        end, document = end + int(before[-1]), here
    offsets[document:] = end
    return tokens[:end]


def _choose(
    found: list[str], tokens: np.ndarray, min_count: int, max_words: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    counts = np.zeros(len(found), np.int64)
    for start in range(0, len(tokens), _PIECE):  # bincount makes a copy with 8 bytes a word
        np.add.at(counts, tokens[start : start + _PIECE], 1)
    long = [i for i in range(len(found)) if len(found[i]) > LONGEST]
    if long:
        message = "%s: left out %s of more than %d characters"
        _log.warning(message, where, count(int(counts[long].sum()), "word"), LONGEST)
    counts[long] = 0
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
