import sys
import types

import numpy as np
import pytest
from test_figures import size
from test_pictures import HOSTILE

from ssl_jax.report import files, maps, pictures


@pytest.fixture
def run(finished_run) -> files.Run:
    return files.read(finished_run)


@pytest.fixture
def no_umap(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)


BOTH = ["t-SNE", "First two principal components"]


def test_map_with_and_without_labels(run, tmp_path, no_umap):
    assert maps.feature_map(run, tmp_path / "map.png") == BOTH
    assert size(tmp_path / "map.png") == (1770, 900)
    unlabelled = run.sample | {"label": np.full(30, -1), "classes": np.array([], str)}
    assert maps.feature_map(run._replace(sample=unlabelled), tmp_path / "plain.png")
    few = {name: column[:9] for name, column in run.sample.items()}
    assert not maps.feature_map(run._replace(sample=few), tmp_path / "few.png")


def test_collapsed_features_have_no_map(run, tmp_path):
    for value in (0.0, 1.0):
        same = run.sample | {"features": np.full_like(run.sample["features"], value)}
        assert not maps.feature_map(run._replace(sample=same), tmp_path / "map.png")


def test_map_of_many_classes_and_of_hostile_names(run, tmp_path, no_umap):
    many = run.sample | {"label": np.arange(30), "classes": np.array([], str)}
    assert maps.feature_map(run._replace(sample=many), tmp_path / "map.png")
    hostile = run.sample | {"label": np.arange(30) % 7, "classes": np.array(HOSTILE)}
    assert maps.feature_map(run._replace(sample=hostile), tmp_path / "map.png")


def test_features_of_one_dimension(run, tmp_path, no_umap):
    thin = run.sample | {"features": run.sample["features"][:, :1]}
    assert maps.feature_map(run._replace(sample=thin), tmp_path / "map.png") == BOTH


def test_umap_is_a_third_panel_where_it_is_installed(run, tmp_path, monkeypatch):
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
    assert maps.feature_map(run, tmp_path / "map.png") == ["t-SNE", "UMAP", BOTH[1]]
    assert size(tmp_path / "map.png") == (1770, 1110)
    assert seen == {"n_neighbors": 15, "random_state": 0, "shape": (30, 8)}
    assert "umap.parametric_umap" not in sys.modules
    assert "t-SNE and UMAP" in pictures.feature_map(run)
