import numpy as np
import pytest

from ssl_jax.evals import label_free


def test_rankme_equals_its_formula_in_float64():
    x = np.random.default_rng(0).normal(size=(300, 20)) * np.logspace(0, -3, 20) + 0.1
    values = np.sqrt(np.linalg.eigvalsh(x.T @ x))
    p = values / values.sum() + 1e-7
    assert label_free.rankme(x) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)


def test_rankme_of_known_spectra():
    assert label_free.rankme(np.eye(64, 16)) == pytest.approx(16, rel=1e-4)
    assert label_free.rankme(np.ones((64, 16))) == pytest.approx(1, rel=1e-4)
    assert 0 < label_free.rankme(np.zeros((64, 16))) < 1.001


def test_other_measures_equal_all_pairs_in_float64():
    rng = np.random.default_rng(0)
    views = (rng.normal(size=(50, 1, 8)) + 0.3 * rng.normal(size=(50, 2, 8))).astype(np.float32)
    numbers = label_free.measure(views[:, 0], views)
    unit = views / np.linalg.norm(views.astype(np.float64), axis=-1, keepdims=True)
    one, two = unit[:, 0], unit[:, 1]
    squares = ((one[:, None] - one[None]) ** 2).sum(-1)[~np.eye(50, dtype=bool)]
    assert numbers["alignment"] == pytest.approx(((one - two) ** 2).sum(-1).mean(), rel=1e-5)
    assert numbers["uniformity"] == pytest.approx(np.log(np.exp(-2 * squares).mean()), rel=1e-5)
    assert numbers["feature_std"] == pytest.approx(8**0.5 * one.std(0).mean(), rel=1e-5)


def test_rows_are_limited(monkeypatch):
    monkeypatch.setattr(label_free, "RANK_ROWS", 30)
    monkeypatch.setattr(label_free, "PAIR_ROWS", 10)
    views = np.random.default_rng(0).normal(size=(50, 2, 4)).astype(np.float32)
    numbers = label_free.measure(views[:, 0], views)
    assert (numbers["n_rank"], numbers["n_pairs"], numbers["dimensions"]) == (30, 10, 4)
    assert numbers["rankme"] == label_free.rankme(views[:30, 0])
