"""Questions about word vectors, against loops and hand-made vectors."""

import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from ssl_jax.errors import BAD_DATA, MISSING_INPUT, Fault
from ssl_jax.evals import protocols, word_vectors
from ssl_jax.evals.protocols import analogy
from ssl_jax.report.figures import analogies

QUESTIONS = ": capitals\nAthens Greece Oslo Norway\n\n: family\nboy girl king queen\n"


def rows(count=30, width=6, seed=0):
    return word_vectors.unit(np.random.default_rng(seed).normal(size=(count, width)))


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_answers_equal_a_search_of_all_words():
    vectors = rows()
    questions = np.random.default_rng(1).permuted(np.tile(np.arange(30), (700, 1)), axis=1)[:, :3]
    found = word_vectors.answer(vectors, questions)
    for (a, b, c), answer in zip(questions, found, strict=True):
        others = [word for word in range(30) if word not in (a, b, c)]
        target = vectors[b] - vectors[a] + vectors[c]
        assert answer == max(others, key=lambda word: cosine(vectors[word], target))


def test_nearest_words_equal_a_sort_of_all_cosines():
    vectors = rows()
    found, cosines = word_vectors.nearest(vectors, np.array([3, 7]), 5)
    for word, near, values in zip((3, 7), found, cosines, strict=True):
        order = sorted(set(range(30)) - {word}, key=lambda i: -cosine(vectors[i], vectors[word]))
        assert near.tolist() == order[:5]
        np.testing.assert_allclose(values, [cosine(vectors[i], vectors[word]) for i in near])


def test_files_of_questions_and_pairs(tmp_path):
    path = tmp_path / "q.txt"
    path.write_text(QUESTIONS)
    first, second = word_vectors.read_questions(str(path))
    assert first == ("capitals", ("Athens", "Greece", "Oslo", "Norway"))
    assert second.section == "family"
    path.write_text(QUESTIONS, "utf-8-sig")
    assert word_vectors.read_questions(str(path))[0].section == "capitals"
    for text in ("Word 1,Word 2,Human (mean)\ncat,dog,7.5\n", "# note\ncat\tdog\t7.5\n"):
        path.write_text(text)
        assert word_vectors.read_pairs(str(path)) == [("cat", "dog", 7.5)]


def test_words_are_found_in_lower_case():
    vocabulary = word_vectors.Vocabulary(np.array(["Oslo", "greece"]))
    assert [vocabulary[word] for word in ("Oslo", "Greece", "oslo")] == [0, 1, -1]
    vocabulary = word_vectors.Vocabulary(np.array(["caf\u00e9"]))
    assert vocabulary["Cafe\u0301"] == 0


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (word_vectors.read_questions, ": a\nb c d\n", "line 2: four words"),
        (word_vectors.read_questions, ": a\n", "no question"),
        (word_vectors.read_pairs, "a b 1\na b\n", "line 2: two words and a number"),
        (word_vectors.read_pairs, "# a\n", "no pair"),
        (word_vectors.read_pairs, "a b nan\n", "line 1: the score 'nan' is not finite"),
    ],
)
def test_damaged_files_are_named(tmp_path, read, text, message):
    path = tmp_path / "file.txt"
    path.write_text(text)
    with pytest.raises(Fault, match=message) as refused:
        read(str(path))
    assert refused.value.code == BAD_DATA


def test_a_missing_file_is_named():
    with pytest.raises(Fault, match=r"none\.txt") as refused:
        word_vectors.read_pairs("none.txt")
    assert refused.value.code == MISSING_INPUT
    with pytest.raises(Fault, match=r"eval\.analogy_file=none\.txt") as refused:
        word_vectors.require_file("analogy_file", "none.txt")
    assert refused.value.code == MISSING_INPUT


def options(**fields):
    given = {"analogy_file": "", "similarity_file": "", "neighbours_of": ()} | fields
    return ConfigDict(given)


@pytest.mark.parametrize(
    ("name", "field", "text", "message"),
    [
        ("analogy", "analogy_file", ": a\nb c d\n", "line 2: four words"),
        ("analogy", "analogy_file", "a b c e\n", "no question has four words of the vocabulary"),
        ("similarity", "similarity_file", "a b 1\na c 2\nb e 3\n", "only 2 pairs"),
        ("similarity", "similarity_file", "a b 1\na c inf\n", "not finite"),
        ("neighbours", "neighbours_of", ("a", "e"), "not in the vocabulary: e"),
    ],
)
def test_protocols_are_checked_against_the_vocabulary(tmp_path, name, field, text, message):
    facts = {"words": np.array(["a", "b", "c", "d"])}
    if isinstance(text, str):
        (tmp_path / "file.txt").write_text(text)
        text = str(tmp_path / "file.txt")
    with pytest.raises(Fault, match=message):
        protocols.get(name).check(options(**{field: text}), facts)


def test_an_old_figure_does_not_outlive_its_vectors(tmp_path):
    (tmp_path / "figures").mkdir()
    figure = tmp_path / "figures" / "analogies.png"
    figure.write_bytes(b"old")
    words = np.array(["Athens", "Greece", "Oslo", "Norway"])
    context = types.SimpleNamespace(
        path=tmp_path, subject=types.SimpleNamespace(facts={"words": words})
    )
    question = word_vectors.Question("capitals", tuple(words.tolist()))
    analogy._draw(context, rows(4), [question], word_vectors.Vocabulary(words))
    assert not figure.exists()


def test_figure_of_analogies_needs_three_pairs(tmp_path):
    words, path = np.array([f"w{i}" for i in range(30)]), tmp_path / "a.png"
    assert not analogies.draw({"capitals": [(0, 1), (2, 3)]}, rows(), words, path)
    assert not path.exists()
    pairs = {"family": [(0, 1), (2, 3), (4, 5)], "capitals": [(6, 7), (8, 9), (10, 11)]}
    assert analogies.draw(pairs, rows(), words, path)
    assert path.read_bytes().startswith(b"\x89PNG")
