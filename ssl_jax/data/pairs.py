"""Opens pairs of an image and a caption: a folder of both, or captions written for class names."""

import contextlib
import dataclasses
import functools
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ssl_jax.data import folder, identity
from ssl_jax.data import holdout as parts
from ssl_jax.data.image_files import EXTENSIONS, Search
from ssl_jax.data.source import Facts, Labels, Record, Source
from ssl_jax.errors import BAD_DATA, IO_ERROR, Fault, count, printable
from ssl_jax.inputs.image import decode
from ssl_jax.inputs.pairs import make, tokenizer
from ssl_jax.inputs.pairs.tokenizer import Tokenizer

SUFFIX = ".txt"
TOKENIZER = "tokenizer"  # the fact that holds the tokenizer
# The prompts of CLIP (arXiv 2103.00020) for CIFAR-10: openai/CLIP data/prompts.md.
TEMPLATES = tuple(
    f"{start} {{}}."
    for start in (
        *("a photo of a", "a blurry photo of a", "a black and white photo of a"),
        *("a low contrast photo of a", "a high contrast photo of a", "a bad photo of a"),
        *("a good photo of a", "a photo of a small", "a photo of a big", "a photo of the"),
        *("a blurry photo of the", "a black and white photo of the"),
        *("a low contrast photo of the", "a high contrast photo of the", "a bad photo of the"),
        *("a good photo of the", "a photo of the small", "a photo of the big"),
    )
)
_log = logging.getLogger(__name__)


def open_pairs(
    data_dir: str,
    split: str,
    channels: int = 3,
    max_megapixels: float = decode.MAX_MEGAPIXELS,
    tokenizer: str = "",
    vocabulary: int = 4096,
    facts: Facts | None = None,
    holdout: float = 0,
) -> Source:
    """Opens a folder of images with a text file beside each: `x.jpg` and `x.txt`.

    Each line of a text file that is not blank is a caption, in UTF-8. Folders below
    `data_dir/split` are searched, too; their names mean nothing. If `data_dir/split` does not
    exist, "train" is `data_dir` itself, as `folder.open_folder` describes. Examples are in bytewise
    order of their paths.

    An image without text file, and a text file that is empty or not UTF-8, is a damaged example.
    A text file without image is skipped. `x.jpg` and `x.png` share `x.txt`; a warning counts such
    images.

    Args:
      data_dir: folder that holds the splits.
      split: name of a folder in `data_dir`.
      channels, max_megapixels: see `decode.decode`.
      tokenizer: file tokenizer.json; "" trains a tokenizer on the captions of the split.
      vocabulary: largest number of tokens.
      facts: facts of the run, with the tokenizer to use; None makes them.
      holdout: share of the pairs that is held out; their captions do not train the tokenizer.

    Raises:
      Fault: as `folder.open_folder`; no image has a caption (65); the tokenizer cannot be loaded.
    """
    decode.check_channels(channels)
    root = folder.split_folder(data_dir, split)
    (found,) = Search(EXTENSIONS | {SUFFIX}).images([root])
    paths = [path for path in found if _extension(path) in EXTENSIONS]
    if not paths:
        endings = ", ".join(sorted(EXTENSIONS))
        message = f"no image in {printable(root)}; expected files that end in {endings}"
        raise Fault(f"{message}, and a text file with the same name beside each", BAD_DATA)
    texts = [_text_path(path) for path in paths]
    partners = set(texts)
    if stray := sum(_extension(path) == SUFFIX and path not in partners for path in found):
        _log.warning("%s: skipped %s without image", printable(root), count(stray, "text file"))
    if shared := len(texts) - len(partners):
        message = "%s: %s the text file of another image, which differs only in its ending"
        words = count(shared, "image") + (" shares" if shared == 1 else " share")
        _log.warning(message, printable(root), words)

    def describe(index: int) -> str:
        return printable(paths[index])

    def captions(index: int) -> list[str]:
        return _read_captions(texts[index])

    def load_image(index: int) -> np.ndarray:
        try:
            with open(paths[index], "rb") as file:
                data = file.read()
        except OSError as error:
            raise Fault(f"cannot read {describe(index)}: {error.strerror}", IO_ERROR) from error
        return decode.decode(data, channels, max_megapixels=max_megapixels)

    def training_captions() -> Iterator[str]:
        for index in parts.training_rows(len(paths), holdout, "pairs").tolist():
            with contextlib.suppress(ValueError):  # `load` reports a damaged caption
                yield from captions(index)

    if not any(map(_has_caption, texts)):
        example = f"{describe(0)} needs {printable(texts[0])}"
        message = f"no image in {printable(root)} has a caption: {example}"
        raise Fault(f"{message}, a text file in UTF-8 with one caption per line", BAD_DATA)
    chosen = _tokenizer(tokenizer, vocabulary, facts, training_captions)

    def load(index: int) -> tuple[Record, Labels]:
        return _record(load_image(index), captions(index), chosen), {}

    return Source(
        name="pairs",
        size=len(paths),
        record=make.record(channels),
        load=load,
        describe=describe,
        identity=functools.cache(lambda: identity.of_files([*paths, *texts], root)),
        facts=_facts(chosen),
        unlabelled_test=True,
    )


def open_captions(
    images: Source, tokenizer: str = "", vocabulary: int = 4096, facts: Facts | None = None
) -> Source:
    """Returns a source of labelled images with captions written from their class names.

    The captions name the class in one of TEMPLATES, chosen by the number of the image. Such
    captions tell what the labels tell: they test the code, and replace no real captions.

    Args:
      images: source of images; its label field in use names the classes.
      tokenizer, vocabulary, facts: as in `open_pairs`.

    Raises:
      Fault: the images have no labels (65), or the tokenizer cannot be loaded.
    """
    classes = images.classes
    if not classes:
        message = f"captions:{images.name}: captions are written from class names"
        raise Fault(f"{message}, and these images have no labels", BAD_DATA)

    def caption(index: int, labels: Labels) -> str:
        label = images.label(labels)
        if label < 0:
            raise ValueError("the image has no label to write a caption from")
        # A hash, because neighbours in a folder are of one class.
        template = TEMPLATES[zlib.crc32(b"%d" % index) % len(TEMPLATES)]
        return template.format(classes[label].replace("_", " "))

    def all_captions() -> Iterator[str]:
        return (text.format(name.replace("_", " ")) for text in TEMPLATES for name in classes)

    chosen = _tokenizer(tokenizer, vocabulary, facts, all_captions)

    def load(index: int) -> tuple[Record, Labels]:
        record, labels = images.load(index)
        return _record(record["image"], [caption(index, labels)], chosen), labels

    channels = images.record["image"][1][-1]
    assert channels is not None
    return dataclasses.replace(
        images,
        name=f"captions:{images.name}",
        record=make.record(channels),
        load=load,
        facts=_facts(chosen),
    )


def tokenizer_from_facts(facts: Facts) -> Tokenizer:
    """Returns the tokenizer of a run."""
    return Tokenizer(facts[TOKENIZER].tobytes().decode("utf-8"))


def _facts(chosen: Tokenizer) -> dict[str, np.ndarray]:
    return {TOKENIZER: np.frombuffer(chosen.text.encode("utf-8"), np.uint8)}


def _tokenizer(
    path: str, vocabulary: int, facts: Facts | None, captions: Callable[[], Iterable[str]]
) -> Tokenizer:
    """Returns the run's tokenizer, that of a file, or one that is trained on the captions."""
    if facts is not None:
        return tokenizer_from_facts(facts)
    if path:
        return tokenizer.load(os.path.expanduser(path), vocabulary)
    return tokenizer.train(captions(), vocabulary)


def _record(image: np.ndarray, captions: Sequence[str], chosen: Tokenizer) -> Record:
    text = np.frombuffer("\n".join(captions).encode("utf-8"), np.uint8)
    return {"image": image, "tokens": chosen.encode_all(captions), "text": text}


def _text_path(image_path: str) -> str:
    return os.path.splitext(image_path)[0] + SUFFIX


def _extension(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _has_caption(path: str) -> bool:
    try:
        return bool(_read_captions(path))
    except ValueError:
        return False


def _read_captions(path: str) -> list[str]:
    """Returns the captions of a text file.

    Raises:
      ValueError: the file is missing, empty or not UTF-8, or contains NUL, as UTF-16 does.
      Fault: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise ValueError(f"the caption {printable(path)} is missing") from None
    except OSError as error:
        raise Fault(f"cannot read {printable(path)}: {error.strerror}", IO_ERROR) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"the caption {printable(path)} is not UTF-8: byte {error.start} is "
        raise ValueError(f"{message}0x{data[error.start]:02x}") from None
    if "\0" in text:
        message = f"the caption {printable(path)} contains NUL, so it is no text in UTF-8"
        raise ValueError(f"{message}; UTF-16 looks like this")
    captions = [line.strip() for line in text.splitlines() if line.strip()]
    if not captions:
        raise ValueError(f"the caption {printable(path)} is empty")
    return captions
