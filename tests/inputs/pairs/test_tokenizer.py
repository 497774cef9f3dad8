"""Captions to tokens: byte-pair encoding, files of other projects, cutting and padding."""

import json

import numpy as np
import pytest

from ssl_jax.errors import BAD_CONFIG, MISSING_INPUT, Fault
from ssl_jax.inputs.pairs import make, tokenizer

CAPTIONS = [
    "A dog runs.",
    "a dog sleeps in the grass",
    "two dogs in the grass",
    "grün, 日本 🦊",
] * 5


@pytest.fixture(scope="module")
def trained():
    return tokenizer.train(CAPTIONS, 300)


def test_training_does_not_depend_on_the_order_and_makes_at_most_the_vocabulary(trained):
    assert tokenizer.train(CAPTIONS[::-1], 300).text == trained.text
    assert 258 < trained.size <= 300
    assert tokenizer.train([], 258).size == 258


def test_merges_are_those_of_the_most_frequent_pairs():
    """Sennrich et al., algorithm 1, by hand: "ab" occurs 3 times, then "abc" twice."""
    trained = tokenizer.train(["abc", "abc", "ab"], 261)
    merges = json.loads(trained.text)["model"]["merges"]
    assert [tuple(pair) for pair in merges] == [("a", "b"), ("Ġ", "ab"), ("Ġab", "c")]


@pytest.mark.parametrize("caption", ["a dog", "grün, 日本 🦊", "", "x" * 500, "\x00 tab\tline"])
def test_every_caption_is_encoded_without_loss_in_lower_case(trained, caption):
    tokens = trained.encode(caption)
    start, end = trained.encode("")
    assert tokens[0] == start
    assert tokens[-1] == end
    assert trained.decode(tokens) == " ".join(caption.lower().split())
    assert max(tokens) < trained.size


def test_names_of_special_tokens_in_a_caption_are_letters(trained):
    end = trained.encode("")[-1]
    tokens = trained.encode("a <|endoftext|> dog")
    assert tokens.count(end) == 1
    assert trained.decode(tokens) == "a <|endoftext|> dog"


def test_rows_are_padded_and_long_captions_keep_their_end(trained):
    start, end = trained.encode("")
    rows = trained.encode_all(["a dog runs.", "", "two dogs in the grass, in the grass"], 6)
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(rows[1], [start, end, -1, -1, -1, -1])
    full = trained.encode("two dogs in the grass, in the grass")
    np.testing.assert_array_equal(rows[2], [*full[:5], end])
    assert len(full) > 6


def test_fit_equals_the_rows_of_the_tokenizer(trained):
    texts = ["a dog runs.", "", "two dogs in the grass, in the grass"]
    for text, want in zip(texts, trained.encode_all(texts, 6), strict=True):
        padded = np.pad(trained.encode(text), (0, 7), constant_values=-1).astype(np.int32)
        np.testing.assert_array_equal(make.fit(padded, 6), want)
        np.testing.assert_array_equal(make.fit(np.asarray(trained.encode(text), np.int32), 6), want)


def test_a_file_is_loaded_and_its_mistakes_are_named(trained, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(trained.text)
    assert tokenizer.load(str(path), 300).encode("a dog") == trained.encode("a dog")
    with pytest.raises(Fault, match=rf"{trained.size} tokens.*vocabulary={trained.size}$") as big:
        tokenizer.load(str(path), 260)
    assert big.value.code == BAD_CONFIG
    path.write_text("{}")
    with pytest.raises(Fault, match="not a tokenizer") as bad:
        tokenizer.load(str(path), 300)
    assert bad.value.code == BAD_CONFIG
    with pytest.raises(Fault, match="No such file") as missing:
        tokenizer.load(str(tmp_path / "none.json"), 300)
    assert missing.value.code == MISSING_INPUT


def test_a_tokenizer_with_the_names_of_other_projects(trained):
    content = json.loads(trained.text)
    content["added_tokens"] = [content["added_tokens"][1] | {"content": "</s>"}]
    vocabulary = content["model"]["vocab"]
    vocabulary["</s>"], vocabulary["x0"] = (
        vocabulary.pop(tokenizer.END),
        vocabulary.pop(tokenizer.START),
    )
    t5 = tokenizer.Tokenizer(json.dumps(content))
    assert t5.encode("a dog")[-1] == 1
    assert t5.encode("") == [1]
    content["added_tokens"] = []
    vocabulary["x1"] = vocabulary.pop("</s>")
    with pytest.raises(ValueError, match="no end token"):
        tokenizer.Tokenizer(json.dumps(content))
