"""Turns captions into tokens by byte-pair encoding, with the library `tokenizers`."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_CONFIG, MISSING_INPUT, Fault, printable

START, END = "<|startoftext|>", "<|endoftext|>"  # names of CLIP's tokenizer
# Names of these tokens in the files of other projects. A file without a start token has no start.
_STARTS = (START, "<s>", "<bos>", "[CLS]")
_ENDS = (END, "</s>", "<eos>", "[SEP]")
PADDING = -1


class Tokenizer:
    """A tokenizer with an end token; threads may share it.

    White space counts as single spaces. A caption that contains the name of a special token, such
    as "<|endoftext|>", holds these letters and not the token.

    Args:
      text: content of a file tokenizer.json.

    Raises:
      ValueError: the text is no tokenizer, or the tokenizer has no end token.
    """

    def __init__(self, text: str):
        try:
            self._tokenizer = _library().Tokenizer.from_str(text)
        except Exception as error:  # the library raises plain exceptions
            raise ValueError(f"not a tokenizer of the library `tokenizers`: {error}") from error
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        starts, ends = (
            [i for name in names if (i := self._tokenizer.token_to_id(name)) is not None][:1]
            for names in (_STARTS, _ENDS)
        )
        if not ends:
            raise ValueError(f"the tokenizer has no end token; known are {', '.join(_ENDS)}")
        self._start, self._end = starts, ends
        self.text = text

    @property
    def size(self) -> int:
        """Number of tokens, the largest token plus 1."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def encode(self, caption: str) -> list[int]:
        """Returns the tokens of a caption, from the start token to the end token."""
        words = self._tokenizer.encode(" ".join(caption.split()), add_special_tokens=False)
        return [*self._start, *words.ids, *self._end]

    def encode_all(self, captions: Sequence[str], length: int = 0) -> np.ndarray:
        """Returns the tokens of captions as rows, with PADDING after the end token.

        Args:
          captions: the captions.
          length: tokens of a row; longer captions lose the tokens before their end token. 0 takes
            the length of the longest caption.

        Returns:
          int32 [captions, length].
        """
        rows = [self.encode(caption) for caption in captions]
        length = length or max(map(len, rows), default=0)
        tokens = np.full((len(rows), length), PADDING, np.int32)
        for row, ids in zip(tokens, rows, strict=True):
            kept = ids if len(ids) <= length else [*ids[: length - 1], ids[-1]]
            row[: len(kept)] = kept
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without special tokens and padding."""
        ids = [int(token) for token in tokens if token >= 0]
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()


def train(captions: Iterable[str], vocabulary: int) -> Tokenizer:
    """Trains byte-level byte-pair encoding on captions in lower case.

    Every text can be encoded, because each byte is a token. The result depends only on how often
    each caption occurs, not on the order.

    Args:
      captions: the captions.
      vocabulary: number of tokens, at least 258; few captions yield fewer tokens.

    Source: Sennrich et al. (arXiv 1508.07909) on bytes, as CLIP (arXiv 2103.00020, section 2.4).
    """
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.normalizer = library.normalizers.Sequence(
        [library.normalizers.NFC(), library.normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[START, END],
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((" ".join(text.split()) for text in captions), trainer)
    return Tokenizer(tokenizer.to_str())


def load(path: str, vocabulary: int) -> Tokenizer:
    """Loads a file tokenizer.json.

    Args:
      path: the file.
      vocabulary: largest number of tokens.

    Raises:
      Fault: the file is missing (66), or holds no tokenizer with an end token and at most
        `vocabulary` tokens (78).
    """
    try:
        with open(path, encoding="utf-8") as file:
            tokenizer = Tokenizer(file.read())
    except OSError as error:
        message = f"cannot read data.tokenizer={printable(path)}: {error.strerror}"
        raise Fault(f"{message}. Name a file tokenizer.json, or pass --config.data.tokenizer=''",
                    MISSING_INPUT) from error  # fmt: skip
    except ValueError as error:
        raise Fault(f"data.tokenizer={printable(path)}: {error}", BAD_CONFIG) from error
    if tokenizer.size > vocabulary:
        raise Fault(
            f"data.tokenizer={printable(path)} has {tokenizer.size:,} tokens, more than "
            f"data.vocabulary={vocabulary}. Pass --config.data.vocabulary={tokenizer.size}",
            BAD_CONFIG,
        )
    return tokenizer


@functools.cache
def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        message = "captions need the library `tokenizers`: pip install tokenizers"
        raise Fault(message, BAD_CONFIG) from error
    return tokenizers
