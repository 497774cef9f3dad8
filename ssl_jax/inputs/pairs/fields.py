"""Fields of the config for pairs: those of images, and those of captions."""

from collections.abc import Mapping
from typing import Any

from ssl_jax.field import FREE, IDENTITY, Field, any_value, number
from ssl_jax.inputs import image

LOWEST_VOCABULARY = 258  # 256 bytes, the start token and the end token

_LENGTH = number("at least 3: the start token, the end token and one more", lambda x: x >= 3)
_VOCABULARY = number(
    f"at least {LOWEST_VOCABULARY}: 256 bytes, the start token and the end token",
    lambda x: x >= LOWEST_VOCABULARY,
)
TEXT_LENGTH = Field(
    "text_length",
    77,
    "Tokens of a caption, with its start and end token; longer captions are cut.",
    _LENGTH,
    IDENTITY,
)
FIELDS = (
    *(row._replace(default=1) if row.name == "views" else row for row in image.FIELDS),
    TEXT_LENGTH,
)
DATA_FIELDS = (
    *image.DATA_FIELDS,
    Field(
        "tokenizer",
        "",
        "File tokenizer.json of the library `tokenizers`; '': byte-pair encoding, trained on the "
        "captions.",
        any_value("a string"),
        FREE,  # the run stores the tokenizer itself and refuses another one
    ),
    Field(
        "vocabulary",
        4096,
        "Number of tokens that the text encoder knows; the tokenizer has at most as many.",
        _VOCABULARY,
        IDENTITY,
    ),
)


def default_fields() -> dict[str, Any]:
    """Returns the default of `config.augment`."""
    return {field.name: field.default for field in FIELDS}


def light_fields(augment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields for fine-tuning: lightly augmented images; captions are not used."""
    return image.light_fields(augment) | {TEXT_LENGTH.name: augment[TEXT_LENGTH.name]}


def problems(augment: Mapping[str, Any]) -> list[str]:
    """Returns one sentence per mistake in `config.augment`."""
    length = augment[TEXT_LENGTH.name]
    need = _LENGTH.problem(length)
    sentences = [f"augment.{TEXT_LENGTH.name}={length!r}: {need}"] if need else []
    return [*image.problems(augment), *sentences]
