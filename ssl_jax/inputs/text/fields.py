"""Fields of the config for text: windows (`augment`) and options of the source (`data`)."""

from collections.abc import Mapping
from typing import Any

from ssl_jax.field import AT_LEAST_1, FINITE, IDENTITY, Field, any_value, number, one_of

FIELDS = (
    Field("window", 5, "Largest distance of a context word; drawn from 1 to it.", AT_LEAST_1,
          IDENTITY),
    Field("subsample", 1e-3,
          "Threshold of the share of all words above which words are dropped at random; 0: none.",
          FINITE, IDENTITY),
)  # fmt: skip
DATA_FIELDS = (
    Field("documents", "line", "What a document is: a line, or a whole file.",
          one_of("line", "file"), IDENTITY),
    Field("label_separator", "",
          "Text between label and document in each line; '': no label there.",
          any_value("a string"), IDENTITY),
    Field("encoding", "utf-8", "Encoding of the files.", any_value("a name of Python's codecs"),
          IDENTITY),
    Field("tokens", "words",
          "words: runs of letters and digits, in lower case; spaces: divided at white space.",
          one_of("words", "spaces"), IDENTITY),
    Field("min_count", 5, "Rarer words are left out of the vocabulary.", AT_LEAST_1, IDENTITY),
    Field("max_words", 1_000_000, "Words of the vocabulary, at most.",
          number("at least 2", lambda x: x >= 2), IDENTITY),
    Field("chunk", 256, "Words of a passage, which is one example, at most.",
          number("at least 2", lambda x: x >= 2), IDENTITY),
)  # fmt: skip


def default_fields() -> dict[str, Any]:
    """Returns the default of `config.augment`."""
    return {field.name: field.default for field in FIELDS}


def problems(augment: Mapping[str, Any]) -> list[str]:
    """Returns one sentence per mistake in `config.augment`."""
    return [
        f"augment.{field.name}={augment[field.name]!r}: {need}"
        for field in FIELDS
        if (need := field.valid.problem(augment[field.name]))
    ]
