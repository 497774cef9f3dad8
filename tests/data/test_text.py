"""Source of plain text: passages, vocabulary, labels, and files that cannot be read."""

import unicodedata
from collections import Counter

import numpy as np
import pytest

from ssl_jax.data import text, vocabulary
from ssl_jax.data.vocabulary import tokenise
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, MISSING_INPUT, Fault


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


def words_of(source, index):
    return [str(source.facts["words"][i]) for i in source.load(index)[0]["tokens"]]


def test_rules_of_tokens():
    line = "Don't STOP, the_1980s' Café-Bar!"
    assert list(tokenise(line, "words")) == ["don't", "stop", "the", "1980s", "café", "bar"]
    assert list(tokenise(line, "spaces")) == ["Don't", "STOP,", "the_1980s'", "Café-Bar!"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("हिन्दी में लिखा।", ["हिन्दी", "में", "लिखा"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("می‌خواهم", ["می‌خواهم"]),
        (unicodedata.normalize("NFD", "Café ÉTÉ"), ["café", "été"]),
        ("İstanbul " + unicodedata.normalize("NFD", "İstanbul"), ["i\u0307stanbul"] * 2),
    ],
)
def test_marks_continue_a_word(line, words):
    assert list(tokenise(line, "words")) == words


@pytest.mark.parametrize("rule", ["words", "spaces"])
def test_words_are_found_in_pieces(monkeypatch, rule):
    line = "Ein  Satz, cafe\u0301 ΟΔΟΣ\u3000don't\n\tend "
    whole = list(tokenise(line, rule))
    assert len(whole) == 6
    for piece in (1, 2, 5):
        monkeypatch.setattr(vocabulary, "_PIECE", piece)
        assert list(tokenise(line, rule)) == whole


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_words_are_numbered_in_pieces(monkeypatch, piece):
    monkeypatch.setattr(vocabulary, "_PIECE", piece)
    documents = [[], ["a", "b"], [], ["x", "b", "a", "b"], ["x"], ["b"], []]
    words = vocabulary.Vocabulary()
    for document in documents:
        words.add(document)
    found = words.encode(min_count=2, max_words=2, where="here")
    assert found.words.tolist() == ["b", "a"]
    assert found.counts.tolist() == [4, 2]
    parts = [part.tolist() for part in np.split(found.tokens, found.offsets)[1:-1]]
    assert parts == [[], [1, 0], [], [0, 1, 0], [], [0], []]
    assert len(found.tokens) == found.offsets[-1]


def test_long_words_are_left_out(tmp_path, caplog):
    line = f"{'a' * 100} {'b' * 101} {'a' * 100}\n"
    source = text.open_text(write(tmp_path, {"a.txt": line * 3 + "c c"}), "train", min_count=1)
    assert source.facts["words"].tolist() == ["a" * 100, "c"]
    assert "left out 3 words of more than 100 characters" in caplog.text


def test_a_byte_order_mark_is_no_text(tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "a.txt").write_text("a b\na", encoding)
        given = "utf-8" if encoding == "utf-8-sig" else encoding
        options = {"tokens": "spaces", "min_count": 1, "encoding": given}
        source = text.open_text(str(tmp_path), "train", **options)
        assert source.facts["words"].tolist() == ["a", "b"]


def test_vocabulary_is_in_order_of_count_then_word(tmp_path):
    folder = write(tmp_path, {"a.txt": "b b c c a a a d\nd e"})
    source = text.open_text(folder, "train", min_count=2)
    assert source.facts["words"].tolist() == ["a", "b", "c", "d"]
    assert source.facts["counts"].tolist() == [3, 2, 2, 2]
    small = text.open_text(folder, "train", min_count=2, max_words=2)
    assert small.facts["words"].tolist() == ["a", "b"]
    assert words_of(small, 0) == ["b", "b", "a", "a", "a"]
    np.testing.assert_allclose(small.load(0)[0]["frequency"], [0.4, 0.4, 0.6, 0.6, 0.6])


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
def test_every_word_is_in_one_passage_and_no_passage_crosses_documents(tmp_path, chunk):
    rng = np.random.default_rng(0)
    documents = [[f"w{i}" for i in rng.integers(0, 9, n)] for n in (0, 1, 3, 7, 20)]
    content = "\n".join(" ".join(words) for words in documents) + "\n   \n"
    source = text.open_text(write(tmp_path, {"a.txt": content}), "train", min_count=1, chunk=chunk)
    passages = [words_of(source, i) for i in range(source.size)]
    whole = [word for words in documents for word in words]
    assert [word for passage in passages for word in passage] == whole
    assert max(map(len, passages)) <= chunk
    pieces = [words[i : i + chunk] for words in documents for i in range(0, len(words), chunk)]
    assert passages == pieces


def test_a_document_without_known_words_is_an_empty_passage(tmp_path, caplog):
    folder = write(tmp_path, {"a.txt": "a a a b b b\nrare\n\na b\n"})
    source = text.open_text(folder, "train", min_count=3)
    assert [words_of(source, i) for i in range(source.size)][1] == []
    assert "1 documents have no word" in caplog.text


def test_one_endless_line(tmp_path):
    folder = write(tmp_path, {"a.txt": "x y " * 10_000})
    source = text.open_text(folder, "train", chunk=256)
    assert source.size == -(-20_000 // 256)
    assert "document 0, from word 256" in source.describe(1)


def test_labels_are_class_folders_or_the_start_of_lines(tmp_path):
    by_folder = write(
        tmp_path / "a",
        {"train/sport/1.txt": "a b\nb a", "train/art/x/2.txt": "b a", "train/art/.hid.txt": "z"},
    )
    source = text.open_text(by_folder, "train", min_count=1)
    assert source.class_names == {"label": ("art", "sport")}
    assert [source.read_labels(i)["label"] for i in range(3)] == [0, 1, 1]
    by_line = write(tmp_path / "b", {"all.txt": "sport\ta b\nart\tb: a\n"})
    source = text.open_text(by_line, "train", min_count=1, label_separator="\t")
    assert [source.load(i)[1]["label"] for i in range(2)] == [1, 0]
    assert words_of(source, 0) == ["a", "b"]


def test_a_test_split_uses_the_words_of_the_training_split(tmp_path):
    folder = write(tmp_path, {"train/a.txt": "a a b", "test/a.txt": "c b b a"})
    train = text.open_text(folder, "train", min_count=1)
    test = text.open_text(folder, "test", facts=train.facts, min_count=1)
    assert words_of(test, 0) == ["b", "b", "a"]


def test_a_file_is_a_document(tmp_path):
    folder = write(tmp_path, {"b.txt": "a\nb\na", "a.TXT": "b b"})
    source = text.open_text(folder, "train", documents="file", min_count=1)
    assert [words_of(source, i) for i in range(2)] == [["b", "b"], ["a", "b", "a"]]


@pytest.mark.parametrize(
    ("files", "options", "code", "message"),
    [
        ({"a.txt": b"caf\xe9 au lait"}, {}, BAD_DATA, r"a\.txt is not utf-8 text.*encoding"),
        ({"a.txt": b"a b\n" * 9000 + b"\xe9 b"}, {}, BAD_DATA, "in line 9001"),
        ({"a.txt": b"a b\na \xe2\x82"}, {}, BAD_DATA, "at its end"),
        ({"a.txt": "a b c d"}, {"encoding": "utf-16"}, BAD_DATA, "utf-16.*BOM"),
        ({"a.txt": "a b c d"}, {"encoding": "undefined"}, BAD_DATA, "undefined"),
        ({"a.txt": "a a"}, {"encoding": "rot13"}, BAD_CONFIG, "rot13"),
        ({"a.txt": "a a"}, {"encoding": "a\0b"}, BAD_DATA, "null character"),
        ({"a.txt": "a\nb\0"}, {}, BAD_DATA, "line 2: a NUL"),
        ({"a.txt": "a\nb\0"}, {"documents": "file"}, BAD_DATA, "line 2: a NUL"),
        ({"a.txt": "a a"}, {"encoding": "utf-99"}, BAD_CONFIG, "utf-99"),
        ({"a.txt": " \n\n"}, {}, BAD_DATA, "all files are empty"),
        ({"a.txt": "a b c"}, {}, BAD_DATA, "0 of 3 different words occur 5 times.*min_count"),
        ({"a.pdf": "a"}, {}, BAD_DATA, r"ends in \.txt"),
        ({"a.txt": "a b"}, {"label_separator": "\t"}, BAD_DATA, "a line has no"),
        ({"a.txt": "a"}, {"label_separator": ",", "documents": "file"}, BAD_CONFIG, "one label"),
    ],
)
def test_text_that_cannot_be_read(tmp_path, files, options, code, message):
    with pytest.raises(Fault, match=message) as refused:
        text.open_text(write(tmp_path, files), "train", **options)
    assert refused.value.code == code


def test_missing_text(tmp_path):
    with pytest.raises(Fault, match=r"no file or folder.*data\.dir") as refused:
        text.open_text(str(tmp_path / "none"), "train")
    assert refused.value.code == MISSING_INPUT
    write(tmp_path, {"train/a.txt": "a"})
    with pytest.raises(Fault, match=r"no folder.*'test'"):
        text.open_text(str(tmp_path), "test")


def test_real_news_are_read_as_they_are_counted(data_dir):
    path = data_dir / "bbc_text" / "bbc_news.txt"
    if not path.exists():
        pytest.skip("no bbc_text in SSL_JAX_DATA_DIR")
    source = text.open_text(str(path), "train", tokens="spaces")
    counts = Counter(path.read_text().split())
    frequent = sorted((w for w in counts if counts[w] >= 5), key=lambda w: (-counts[w], w))
    assert source.facts["words"].tolist() == frequent
    assert source.facts["counts"].tolist() == [counts[word] for word in frequent]
