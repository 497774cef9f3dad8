"""Confused classes, saliency, curves over labels and layers."""

import numpy as np
import pytest
from test_figures import size

from ssl_jax.report import confusion, files, probes, saliency
from ssl_jax.report.style import label


@pytest.fixture
def run(finished_run) -> files.Run:
    return files.read(finished_run)


def predicted(run, **columns):
    return run._replace(predictions={name: np.asarray(x) for name, x in columns.items()})


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
def test_the_linear_evaluation_with_most_labels_is_drawn(run, names, chosen):
    columns = {name: [0, 1] for name in ["label", *names]}
    assert confusion.chosen(predicted(run, **columns)) == chosen


def test_confusions_agree_with_scikit_learn():
    from sklearn.metrics import confusion_matrix

    truth, guess = np.random.default_rng(0).integers(0, 4, (2, 60))
    truth[:5] = -1
    counts = confusion.matrix(truth, guess, 4)
    np.testing.assert_array_equal(counts, confusion_matrix(truth[5:], guess[5:]))


def test_pairs_are_sorted_by_the_share_of_the_true_class():
    counts = np.array([[90, 10, 0], [3, 5, 2], [0, 0, 4]])
    assert confusion.pairs(counts) == [(1, 0, 0.3), (1, 2, 0.2), (0, 1, 0.1)]
    assert confusion.pairs(counts, 1) == [(1, 0, 0.3)]


def test_few_classes_are_a_matrix_and_many_are_pairs(run, tmp_path):
    assert confusion.draw(run, tmp_path / "a.png") == "matrix"
    assert size(tmp_path / "a.png") == (363, 363)
    truth = np.arange(60) % 30
    many = predicted(run, label=truth, knn=np.where(truth < 3, truth + 1, truth))
    assert confusion.draw(many, tmp_path / "b.png") == "pairs"
    assert size(tmp_path / "b.png")[0] == 1260
    assert not confusion.draw(predicted(run, label=truth, knn=truth), tmp_path / "c.png")


def test_no_predictions_or_broken_ones_are_no_picture(run, tmp_path):
    for broken in ({}, {"label": [0, 1]}, {"knn": [0, 1]}, {"label": [0], "knn": [0, 1]}):
        assert not confusion.draw(predicted(run, **broken), tmp_path / "a.png")
    assert not confusion.draw(predicted(run, label=[-1], knn=[0]), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_saliency_is_drawn_over_its_image(run, tmp_path):
    assert saliency.draw(run, tmp_path / "a.png")
    width, height = size(tmp_path / "a.png")
    assert width > height > 400
    plain = {name: x for name, x in run.sample.items() if name != "saliency"}
    assert not saliency.draw(run._replace(sample=plain), tmp_path / "b.png")
    assert not saliency.draw(run._replace(sample={}), tmp_path / "b.png")
    dead = run.sample | {"saliency": np.zeros((3, 4, 4), np.float16)}
    assert saliency.draw(run._replace(sample=dead), tmp_path / "c.png")


def few_shot(**results):
    return {"evaluation": "few_shot", "results": results}


def test_bands_are_drawn_where_there_are_intervals(tmp_path):
    whole = {"shots": [1, 5, 100], "accuracy": [0.1, 0.5, 0.9], "ci95": [0.1, 0.1, 0.01]}
    bare = {"shots": [1, 5], "accuracy": [0.1, 0.2]}
    lines = probes._lines(few_shot(a=whole, b=bare))
    np.testing.assert_allclose(lines[0].spread, [10, 10, 1])
    np.testing.assert_allclose(lines[1].y, [10, 20])
    assert lines[1].spread is None
    assert "Band" in probes.caption(few_shot(a=whole))
    assert "Band" not in probes.caption(few_shot(b=bare))
    assert probes.draw(few_shot(a=whole, b=bare), "b", tmp_path / "a.png")
    assert size(tmp_path / "a.png") == (870, 585)


@pytest.mark.parametrize(
    "broken",
    [
        {"shots": [1, 2], "accuracy": [0.1]},
        {"shots": [0], "accuracy": [0.1]},
        {"shots": [1], "accuracy": [None]},
        {"shots": [], "accuracy": []},
        {"accuracy": 0.5},
        [1],
    ],
)
def test_broken_curves_are_left_out(tmp_path, broken):
    assert not probes.draw(few_shot(a=broken), "a", tmp_path / "a.png")


def test_layers_keep_their_order(tmp_path):
    found = {"layers": ["stem", "z", "a"], "accuracy": [0.1, 0.2, 0.3]}
    evaluation = {"evaluation": "layers", "results": {"simclr": found}}
    assert probes._lines(evaluation)[0].x == ["stem", "z", "a"]
    assert probes.draw(evaluation, "simclr", tmp_path / "a.png")


HOSTILE = ["$x_{$", "_hidden", "a\nb\t---", "🐱" * 9, "x" * 300, "<b>&`", "%s {0}"]


def test_hostile_class_names_are_drawn_as_they_are(run, tmp_path):
    names = np.array(HOSTILE)
    sample = run.sample | {"label": np.arange(30) % 7, "classes": names}
    hostile = predicted(run._replace(sample=sample), label=np.arange(7), knn=np.arange(7)[::-1])
    assert confusion.draw(hostile, tmp_path / "a.png") == "matrix"
    assert saliency.draw(hostile, tmp_path / "b.png")
    assert label("a\nb\t---") == "a b ---"
    assert len(label("x" * 300)) == 24
    assert not label("_hidden").startswith("_")
