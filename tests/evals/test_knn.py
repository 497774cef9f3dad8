import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from ssl_jax.evals import knn


@pytest.fixture
def clusters() -> tuple[np.ndarray, ...]:
    """Makes overlapping Gaussian clusters with labels 3, 10, 11, ...; about half are hard."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 16))
    code = rng.integers(0, 6, 700)
    x = (centres[code] + 1.5 * rng.normal(size=(700, 16))).astype(np.float32)
    y = np.array([3, 10, 11, 12, 20, 21])[code]
    return x[:500], y[:500], x[500:], y[500:]


def brute_force(bank, labels, queries, k, temperature):
    """Classifies in float64, one query at a time, by the paper's formula."""
    bank = bank.astype(np.float64) / np.linalg.norm(bank.astype(np.float64), axis=1)[:, None]
    classes, predicted = np.unique(labels), []
    for query in queries.astype(np.float64):
        similarity = bank @ (query / np.linalg.norm(query))
        nearest = np.argsort(-similarity, kind="stable")[:k]
        weight = np.exp(similarity[nearest] / temperature)
        votes = [weight[labels[nearest] == c].sum() for c in classes]
        predicted.append(classes[np.argmax(votes)])
    return np.array(predicted)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (20, 0.1), (200, 0.07), (500, 1.0)])
def test_equals_brute_force_in_float64(clusters, k, temperature):
    bank, labels, queries, _ = clusters
    predicted = knn.predict(bank, labels, queries, k=k, temperature=temperature)
    np.testing.assert_array_equal(predicted, brute_force(bank, labels, queries, k, temperature))


def test_equals_sklearn_with_the_same_weights(clusters):
    bank, labels, queries, truth = clusters
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries)]
    # On unit vectors, d^2 = 2 - 2 s.
    weights = lambda distance: np.exp((1 - distance**2 / 2) / 0.1)  # noqa: E731
    oracle = KNeighborsClassifier(30, weights=weights).fit(unit[0], labels)
    accuracy = knn.accuracy(bank, labels, queries, truth, k=30, temperature=0.1)
    assert accuracy == pytest.approx(oracle.score(unit[1], truth), abs=1e-9)
    assert 0.4 < accuracy < 0.95


def test_blocks_of_queries_give_the_same_result(clusters, monkeypatch):
    bank, labels, queries, _ = clusters
    whole = knn.predict(bank, labels, queries, k=20)
    monkeypatch.setattr(knn, "BLOCK_SCORES", 500 * 64)  # 200 queries in blocks of 64
    np.testing.assert_array_equal(knn.predict(bank, labels, queries, k=20), whole)


def test_k_above_the_bank_takes_the_whole_bank(clusters):
    bank, labels, queries, _ = clusters
    a, b = (knn.predict(bank, labels, queries, k=k) for k in (500, 10_000))
    np.testing.assert_array_equal(a, b)


def test_votes_are_weighted_by_similarity():
    # Two neighbours of class 1 at cosine 0.8 against one of class 0 at cosine 1.0. The nearer one
    # outweighs them if exp(0.2 / T) > 2, that is if T < 0.289.
    bank = np.array([[1, 0, 0], [0.8, 0.6, 0], [0.8, -0.6, 0]], np.float32)
    labels, query = np.array([0, 1, 1]), np.array([[2, 0, 0]], np.float32)
    assert knn.predict(bank, labels, query, k=3, temperature=0.28) == [0]
    assert knn.predict(bank, labels, query, k=3, temperature=0.30) == [1]


def test_ties_go_to_the_lower_index_and_the_lower_class():
    same = np.ones((6, 4), np.float32)
    assert knn.predict(same, np.array([5, 1, 1, 1, 1, 1]), same[:1], k=1) == [5]
    assert knn.predict(same, np.array([5, 1, 5, 1, 5, 1]), same[:1], k=6) == [1]


def test_small_temperature_and_zero_features_stay_finite():
    bank = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    assert knn.predict(bank, np.array([0, 1, 2]), bank[:2], k=3, temperature=1e-4).tolist() == [
        0,
        1,
    ]
    assert knn.predict(bank, np.array([0, 1, 2]), bank[2:], k=3).tolist() == [0]


def test_class_that_train_lacks_counts_as_missed():
    bank = np.eye(2, dtype=np.float32)
    assert knn.accuracy(bank, np.array([0, 1]), bank, np.array([0, 7]), k=1) == 0.5


def test_selects_neighbours_without_sorting_the_bank():
    queries, bank, codes = np.zeros((64, 8), "f4"), np.zeros((4096, 8), "f4"), np.zeros(4096, "i4")
    nearest = np.zeros((64, 20), np.float32), np.zeros((64, 20), np.int32)
    program = knn._search.lower(queries, *nearest, bank, codes, 4096, sharding=None).compile()
    assert 'custom_call_target="TopK"' in program.as_text()
    assert " sort(" not in program.as_text()
