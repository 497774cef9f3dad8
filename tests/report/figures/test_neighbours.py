import numpy as np
import pytest
from png_files import png_size

from ssl_jax.report import run_files
from ssl_jax.report.figures import neighbours


@pytest.fixture
def run(finished_run) -> run_files.Run:
    return run_files.read_run(finished_run)


def draw(sample, classes, path):
    return neighbours.draw(sample["image"], sample["features"], sample["label"], classes, path)


def test_nearest_matches_hand_worked_angles():
    # Angles of 0, 10, 25 and 90 degrees. Lengths must not matter, and no row is its own neighbour.
    angle = np.deg2rad([0, 10, 25, 90])
    x = np.stack([np.cos(angle), np.sin(angle)], 1) * np.array([[1], [5], [0.1], [3]])
    assert neighbours.nearest(x, 2).tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]


def test_draws_neighbours_and_computes_their_precision(run, tmp_path):
    features, labels = run.sample["features"], run.sample["label"]
    assert draw(run.sample, run.classes, tmp_path / "neighbours.png")
    width, height = png_size(tmp_path / "neighbours.png")
    assert width == 1770
    assert 600 < height < 900
    unit = features / np.linalg.norm(features, axis=1)[:, None]
    order = np.argsort(-(unit @ unit.T), axis=1)[:, 1:7]
    same = labels[order] == labels[:, None]
    assert neighbours.precision(features, labels) == pytest.approx(same.mean())
    unlabelled = run.sample | {"label": np.full(30, -1)}
    assert neighbours.precision(features, unlabelled["label"]) is None
    assert draw(unlabelled, run.classes, tmp_path / "plain.png")


def test_queries_take_each_class_before_repeating_one():
    labels = np.array([1, 1, 1, 0, 0, 2])
    assert neighbours._choose_queries(labels, 4) == [3, 0, 5, 4]
