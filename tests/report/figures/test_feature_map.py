import sys
import types

import numpy as np
import pytest
from png_files import png_size
from written_run import HOSTILE

from ssl_jax.report import figure_sections, run_files
from ssl_jax.report.figures import feature_map


@pytest.fixture
def run(finished_run) -> run_files.Run:
    return run_files.read_run(finished_run)


@pytest.fixture
def no_umap(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)


BOTH = ["t-SNE", "First two principal components"]


def draw(sample, path):
    classes = [str(name) for name in sample["classes"]]
    return feature_map.draw(sample["features"], sample["label"], classes, path)


def test_draws_a_map_with_and_without_labels(run, tmp_path, no_umap):
    assert draw(run.sample, tmp_path / "map.png") == BOTH
    assert png_size(tmp_path / "map.png") == (1770, 900)
    unlabelled = run.sample | {"label": np.full(30, -1), "classes": np.array([], str)}
    assert draw(unlabelled, tmp_path / "plain.png")
    few = {name: column[:9] for name, column in run.sample.items()}
    assert not draw(few, tmp_path / "few.png")


def test_draws_no_map_of_collapsed_features(run, tmp_path):
    for value in (0.0, 1.0):
        same = run.sample | {"features": np.full_like(run.sample["features"], value)}
        assert not draw(same, tmp_path / "map.png")


def test_draws_many_classes_and_hostile_class_names(run, tmp_path, no_umap):
    many = run.sample | {"label": np.arange(30), "classes": np.array([], str)}
    assert draw(many, tmp_path / "map.png")
    hostile = run.sample | {"label": np.arange(30) % 7, "classes": np.array(HOSTILE)}
    assert draw(hostile, tmp_path / "map.png")


def test_draws_features_of_one_dimension(run, tmp_path, no_umap):
    thin = run.sample | {"features": run.sample["features"][:, :1]}
    assert draw(thin, tmp_path / "map.png") == BOTH


def test_umap_is_a_third_plot_if_it_is_installed(run, tmp_path, monkeypatch):
    seen = {}

    class UMAP:
        def __init__(self, **options):
            seen.update(options)

        def fit_transform(self, x):
            import warnings

            warnings.warn("n_jobs value 1 overridden", UserWarning, stacklevel=1)
            seen["shape"] = x.shape
            return x[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    assert draw(run.sample, tmp_path / "map.png") == ["t-SNE", "UMAP", BOTH[1]]
    assert png_size(tmp_path / "map.png") == (1770, 1110)
    assert seen == {"n_neighbors": 15, "random_state": 0, "shape": (30, 8)}
    assert "umap.parametric_umap" not in sys.modules
    assert "t-SNE and UMAP" in figure_sections.feature_map_section(run)
