import numpy as np
import pytest
from png_files import png_size
from written_run import HOSTILE

from ssl_jax.report import run_files
from ssl_jax.report.figures import confusion
from ssl_jax.report.figures.style import label


@pytest.fixture
def run(finished_run) -> run_files.Run:
    return run_files.read_run(finished_run)


def columns(**predictions):
    return {name: np.asarray(x) for name, x in predictions.items()}


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["knn", "linear_10", "linear_100", "linear"], "linear"),
        (["knn", "linear_10", "linear_100"], "linear_100"),
        (["linear_sgd", "linear_10", "knn"], "linear_sgd"),
        (["classifier", "knn"], "knn"),
        (["classifier"], "classifier"),
        ([], ""),
    ],
)
def test_prefers_the_linear_evaluation_with_most_labels(names, chosen):
    predictions = columns(**{name: [0, 1] for name in ["label", *names]})
    assert confusion.choose_evaluation(predictions) == chosen


def test_matrix_agrees_with_scikit_learn():
    from sklearn.metrics import confusion_matrix

    truth, guess = np.random.default_rng(0).integers(0, 4, (2, 60))
    truth[:5] = -1
    counts = confusion.confusion_matrix(truth, guess, 4)
    np.testing.assert_array_equal(counts, confusion_matrix(truth[5:], guess[5:]))


def test_pairs_are_sorted_by_the_share_of_the_true_class():
    counts = np.array([[90, 10, 0], [3, 5, 2], [0, 0, 4]])
    assert confusion.worst_pairs(counts) == [(1, 0, 0.3), (1, 2, 0.2), (0, 1, 0.1)]
    assert confusion.worst_pairs(counts, 1) == [(1, 0, 0.3)]


def test_draws_a_matrix_for_few_classes_and_pairs_for_many(run, tmp_path):
    assert confusion.draw(run.predictions, run.classes, tmp_path / "a.png") == "matrix"
    assert png_size(tmp_path / "a.png") == (363, 363)
    truth = np.arange(60) % 30
    many = columns(label=truth, knn=np.where(truth < 3, truth + 1, truth))
    assert confusion.draw(many, run.classes, tmp_path / "b.png") == "pairs"
    assert png_size(tmp_path / "b.png")[0] == 1260
    perfect = columns(label=truth, knn=truth)
    assert not confusion.draw(perfect, run.classes, tmp_path / "c.png")


def test_draws_nothing_without_valid_predictions(run, tmp_path):
    for broken in ({}, {"label": [0, 1]}, {"knn": [0, 1]}, {"label": [0], "knn": [0, 1]}):
        assert not confusion.draw(columns(**broken), run.classes, tmp_path / "a.png")
    unlabelled = columns(label=[-1], knn=[0])
    assert not confusion.draw(unlabelled, run.classes, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_draws_hostile_class_names_as_plain_text(tmp_path):
    predictions = columns(label=np.arange(7), knn=np.arange(7)[::-1])
    assert confusion.draw(predictions, HOSTILE, tmp_path / "a.png") == "matrix"
    assert label("a\nb\t---") == "a b ---"
    assert len(label("x" * 300)) == 24
    assert not label("_hidden").startswith("_")
