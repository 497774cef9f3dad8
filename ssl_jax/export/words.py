"""Exports word vectors in the text and the binary format of `word2vec.c`.

gensim (`KeyedVectors.load_word2vec_format`), spaCy (`spacy init vectors`) and others read them.
"""

import pathlib
from typing import BinaryIO

import numpy as np

from ssl_jax import config as configuration
from ssl_jax.errors import BAD_DATA, NUMERIC, USAGE, Fault
from ssl_jax.export import atomic_folder
from ssl_jax.pretrained import backbone
from ssl_jax.rundir import workdir

TEXT, BINARY, RECORD = "vectors.txt", "vectors.bin", "check.json"


def write(path: pathlib.Path, folder: pathlib.Path) -> tuple[pathlib.Path, str]:
    """Writes vectors.txt and vectors.bin, and reads both back.

    Args:
      path: workdir of a run of a method that embeds words.
      folder: folder of the export; an earlier export there is replaced.

    Returns:
      (the folder, lines of Python that load the export).

    Raises:
      Fault: the run has no word vectors, a word contains white space, or the files differ.
    """
    words, vectors, origin = word_vectors(path)
    atomic_folder.refuse_link(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).exists():
        raise Fault(f"{folder} holds something else than an export; move it away", USAGE)
    atomic_folder.require_space(folder.parent, 5 * vectors.nbytes)
    with atomic_folder.replace_folder(folder) as new:
        write_files(new, words, vectors)
        for name, read in ((TEXT, read_text), (BINARY, read_binary)):
            found, values = read(new / name)
            if found != words or not np.array_equal(values, vectors):
                message = f"{name}: read back, it holds other vectors. Nothing was exported"
                raise Fault(f"{message}. Please report this with the run's config", NUMERIC)
        record = {"format": "word2vec", "words": len(words), "width": vectors.shape[1]}
        workdir.write_json(new / RECORD, record | {"origin": origin, "error": 0.0})
    place = str(folder / TEXT)
    usage = (
        "from gensim.models import KeyedVectors\n"
        f"vectors = KeyedVectors.load_word2vec_format({place!r})\n"
        f"# spaCy: python -m spacy init vectors en {place} FOLDER"
    )
    return folder, usage


def word_vectors(path: pathlib.Path) -> tuple[list[str], np.ndarray, str]:
    """Returns (words, vectors float32 [V, d], origin) of a run's newest checkpoint.

    Raises:
      Fault: the run has no word vectors, or the checkpoint is missing or damaged.
    """
    encoder = None
    if workdir.is_run(path):
        encoder = backbone.backbone_from_run(configuration.load(path), path)
    if encoder is None or "words" not in encoder.facts:
        message = f"{path} is not a run with word vectors, which --format=word2vec needs"
        raise Fault(f"{message}. Train one by --config=word2vec", USAGE)
    words = encoder.facts["words"].tolist()
    if broken := [word for word in words if not word or word.split() != [word]]:
        message = f"the words {broken[:3]!r} contain white space, which divides words in the format"
        raise Fault(message, BAD_DATA)
    table = np.asarray(encoder.weights.params["table"], np.float32)
    return words, table[: len(words)], encoder.origin


def write_files(folder: pathlib.Path, words: list[str], vectors: np.ndarray) -> None:
    """Writes the two files. Nine digits identify each float32 of the text."""
    head = f"{len(words)} {vectors.shape[1]}\n".encode()
    with open(folder / TEXT, "wb") as text, open(folder / BINARY, "wb") as binary:
        text.write(head)
        binary.write(head)
        for word, vector in zip(words, vectors, strict=True):
            name = word.encode()
            numbers = " ".join(f"{value:.9g}" for value in vector.tolist())
            text.write(name + b" " + numbers.encode() + b"\n")
            binary.write(name + b" " + vector.astype("<f4").tobytes() + b"\n")


def read_text(path: pathlib.Path) -> tuple[list[str], np.ndarray]:
    """Returns (words, vectors float32 [V, d]) of a file in the text format."""
    words, rows = [], []
    with open(path, encoding="utf-8", newline="\n") as file:
        count, width = map(int, file.readline().split())
        for line in file:
            word, *numbers = line.rstrip("\n").split(" ")
            words.append(word)
            rows.append(np.array(numbers, np.float32))
    return words, np.array(rows, np.float32).reshape(count, width)


def read_binary(path: pathlib.Path) -> tuple[list[str], np.ndarray]:
    """Returns (words, vectors float32 [V, d]) of a file in the binary format."""
    with open(path, "rb") as file:
        count, width = map(int, file.readline().split())
        words, vectors = [], np.zeros((count, width), np.float32)
        for row in range(count):
            words.append(_word(file))
            vectors[row] = np.frombuffer(file.read(4 * width), "<f4")
            file.read(1)  # the line feed
    return words, vectors


def _word(file: BinaryIO) -> str:
    letters = bytearray()
    while (letter := file.read(1)) != b" ":
        if not letter:
            raise ValueError("the file ends inside a word")
        letters += letter
    return letters.decode()
