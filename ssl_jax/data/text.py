"""Opens plain text as a source: passages of documents, as numbers of a vocabulary's words."""

import codecs
import functools
import logging
import os
from collections.abc import Iterator, Mapping

import numpy as np

from ssl_jax.data import identity
from ssl_jax.data.image_files import split_entries
from ssl_jax.data.source import Labels, Record, Source, Spec
from ssl_jax.data.vocabulary import Encoded, Vocabulary, tokenise
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, IO_ERROR, MISSING_INPUT, Fault, printable

EXTENSIONS = (".txt", ".text")
DOCUMENTS = ("line", "file")
_SPLITS = frozenset({"train", "training", "test", "val", "validation", "valid", "testing"})
_log = logging.getLogger(__name__)


def text_record() -> Spec:
    """Returns the spec of a passage: its words' numbers, and each word's share of all words."""
    return {"tokens": (np.int32, (None,)), "frequency": (np.float32, (None,))}


def open_text(
    data_dir: str,
    split: str,
    *,
    facts: Mapping[str, np.ndarray] | None = None,
    documents: str = "line",
    label_separator: str = "",
    encoding: str = "utf-8",
    tokens: str = "words",
    min_count: int = 5,
    max_words: int = 1_000_000,
    chunk: int = 256,
) -> Source:
    """Opens a file or a folder of plain text.

    Files at `data_dir/split/CLASS/**` have labels: the class folders. Files at `data_dir/split` may
    have a label in each line, see `label_separator`. If `data_dir/split` does not exist, "train" is
    `data_dir` itself: a file, or a folder without folders of splits. Files end in .txt or .text.

    An example is a passage: at most `chunk` consecutive words of one document that are in the
    vocabulary. Every such word of the text is in exactly one passage. A document without such a
    word is one empty passage; blank lines and files are no documents.

    Words with more than 100 characters are left out. The text is in memory, 4 bytes a word, and
    reading needs the characters of a document besides.

    Args:
      data_dir: file or folder.
      split: name of a folder in `data_dir`.
      facts: "words" and "counts" of an earlier `Source.facts`, whose vocabulary is used; None
        builds the vocabulary from this text.
      documents: "line" (every line is a document) or "file".
      label_separator: text that ends the label at the start of each line, for example "\\t"; "" for
        lines without label.
      encoding: encoding of the files. A byte order mark of UTF-8 is no text.
      tokens: rule that divides text into words, see `vocabulary.tokenise`.
      min_count: rarer words are left out.
      max_words: size of the largest vocabulary; rarer words are left out.
      chunk: words of a passage, at most.

    Raises:
      Fault: no such file or folder (66); no text, no word that is frequent enough, a NUL, or bytes
        that are not of the encoding (65); a file cannot be read (74); contradicting options (78).
    """
    if label_separator and documents == "file":
        message = "data.label_separator: a file has one label; name it by a folder for each class"
        raise Fault(message, BAD_CONFIG)
    root, groups = _files(data_dir, split)
    paths = [path for _, files in groups for path in files]
    vocabulary = Vocabulary(facts)
    labels: list[str] = []
    for name, files in groups:
        for path in files:
            for line in _documents(path, documents, encoding):
                label, text = name, line
                if label_separator:
                    label, found, text = line.partition(label_separator)
                    if not found:
                        message = f"{printable(path)}: a line has no {label_separator!r}, which "
                        message += "data.label_separator names: " + printable(line[:60])
                        raise Fault(message, BAD_DATA)
                vocabulary.add(tokenise(text, tokens))
                labels.append(label.strip())
    if not labels:
        raise Fault(f"no text in {printable(root)}: all files are empty", BAD_DATA)
    words = vocabulary.encode(min_count=min_count, max_words=max_words, where=printable(root))
    return _source(words, labels, paths, root, chunk)


def _source(words: Encoded, labels: list[str], paths: list[str], root: str, chunk: int) -> Source:
    lengths = np.diff(words.offsets)
    empty = int((lengths == 0).sum())
    if empty:
        _log.warning("%s: %d documents have no word of the vocabulary", printable(root), empty)
    passages = np.maximum(-(-lengths // chunk), 1)
    document = np.repeat(np.arange(len(lengths)), passages)
    first = np.cumsum(passages) - passages
    starts = words.offsets[document] + (np.arange(len(document)) - first[document]) * chunk
    ends = np.minimum(starts + chunk, words.offsets[document + 1])
    names = tuple(sorted(set(labels) - {""}))
    numbers = {name: number for number, name in enumerate(names)}
    frequency = (words.counts / max(words.counts.sum(), 1)).astype(np.float32)

    def read_labels(index: int) -> Labels:
        return {"label": numbers.get(labels[document[index]], -1)} if names else {}

    def load(index: int) -> tuple[Record, Labels]:
        tokens = words.tokens[starts[index] : ends[index]]
        return {"tokens": tokens, "frequency": frequency[tokens]}, read_labels(index)

    def describe(index: int) -> str:
        place = starts[index] - words.offsets[document[index]]
        return f"{printable(root)}, document {document[index]}, from word {place}"

    return Source(
        name="text",
        size=len(document),
        record=text_record(),
        load=load,
        describe=describe,
        read_labels=read_labels,
        group=lambda index: int(document[index]),
        group_noun="document",
        class_names={"label": names} if names else {},
        identity=functools.cache(lambda: identity.of_files(paths, root)),
        facts={"words": words.words, "counts": words.counts},
    )


def _documents(path: str, documents: str, encoding: str) -> Iterator[str]:
    """Yields the documents of a file that are not blank."""
    advice = "Name its encoding, for example by --config.data.encoding=latin-1, or convert the file"
    try:
        with open(path, encoding=_without_mark(encoding)) as file:
            lines = [file.read()] if documents == "file" else file
            for number, line in enumerate(lines, 1):
                if (place := line.find("\0")) >= 0:
                    number += line[:place].count("\n")
                    message = f"{printable(path)}, line {number}: a NUL character, which no text "
                    raise Fault(f"{message}has. {advice}", BAD_DATA)
                if line.strip():
                    yield line
    except UnicodeDecodeError as error:
        raise Fault(
            f"{printable(path)} is not {encoding} text: {error.reason}{_place(path, encoding)}. "
            + advice,
            BAD_DATA,
        ) from error
    except LookupError as error:
        raise Fault(
            f"data.encoding={encoding!r}: Python has no such encoding of text", BAD_CONFIG
        ) from error
    except ValueError as error:  # some codecs raise other errors than UnicodeDecodeError
        message = f"{printable(path)} cannot be read as {encoding!r} text: {error}. {advice}"
        raise Fault(message, BAD_DATA) from error
    except OSError as error:
        code = MISSING_INPUT if isinstance(error, FileNotFoundError) else IO_ERROR
        raise Fault(f"cannot read {printable(path)}: {error.strerror}", code) from error


def _without_mark(encoding: str) -> str:
    """Returns the encoding that also skips a byte order mark, which other encodings do anyway."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def _place(path: str, encoding: str) -> str:
    """Returns where a file stops being text, in words: the error itself knows only the buffer."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = 1
    with open(path, "rb") as file:
        for line in file:
            try:
                decoder.decode(line)
            except UnicodeDecodeError:
                return f" in line {lines}"
            lines += 1
    return " at its end"


def _files(data_dir: str, split: str) -> tuple[str, list[tuple[str, list[str]]]]:
    """Returns the root of a split, and (class or "", its files) in bytewise order."""
    root = os.path.join(data_dir, split)
    if not os.path.exists(root) and os.path.isfile(data_dir) and split == "train":
        return os.path.dirname(data_dir), [("", [data_dir])]
    if not os.path.isdir(root):
        root = _whole(data_dir, split, root)
    folders, _ = split_entries(root)
    own = _text_files(root)
    groups = [(entry.name, _below(entry.path)) for entry in folders]
    groups = [(name, files) for name, files in groups if files]
    if groups and own:
        _log.warning("%s: skipped %d files beside the class folders", printable(root), len(own))
    if not groups and not own:
        ends = " or ".join(EXTENSIONS)
        raise Fault(f"no file in {printable(root)} whose name ends in {ends}", BAD_DATA)
    return root, groups or [("", own)]


def _whole(data_dir: str, split: str, root: str) -> str:
    if not os.path.exists(data_dir):
        message = f"no file or folder {printable(os.path.abspath(data_dir))}, which data.dir names"
        raise Fault(f"{message}. Pass --config.data.dir=TEXT", MISSING_INPUT)
    if os.path.isdir(data_dir):
        folders, _ = split_entries(data_dir)
        if split == "train" and not _SPLITS & {entry.name.lower() for entry in folders}:
            return data_dir
    raise Fault(
        f"no folder {printable(os.path.abspath(root))} for the split {split!r}. Create it, or "
        "choose another split",
        MISSING_INPUT,
    )


def _below(folder: str) -> list[str]:
    found = []
    for path, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += _text_files(path)
    return found


def _text_files(folder: str) -> list[str]:
    names = sorted(os.listdir(folder), key=os.fsencode)
    chosen = (name for name in names if name.lower().endswith(EXTENSIONS) and name[0] != ".")
    return [path for name in chosen if os.path.isfile(path := os.path.join(folder, name))]
