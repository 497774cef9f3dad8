import jax
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from ssl_jax.evals import few_shot


def blobs(n=240, f=20, classes=4, seed=0, noise=1.5):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = np.random.default_rng(9).normal(size=(classes, f))
    x = centres[y] + noise * rng.normal(size=(n, f))
    return (x * np.logspace(0, 2, f)).astype(np.float32), y


@pytest.mark.parametrize("n", [8, 60])  # fewer and more rows than features
@pytest.mark.parametrize("l2", [1.0, 20.0])
def test_ridge_equals_sklearn(n, l2):
    x, y = blobs(n)
    x = (x - x.mean(0)) / x.std(0)
    targets = np.eye(4, dtype=np.float32)[y]
    weight, bias = few_shot.ridge(x, targets, l2)
    oracle = Ridge(alpha=l2, solver="svd").fit(x.astype(np.float64), targets.astype(np.float64))
    np.testing.assert_allclose(weight, oracle.coef_.T, atol=3e-6)
    np.testing.assert_allclose(bias, oracle.intercept_, atol=3e-6)


def test_accuracies_equal_sklearn_on_the_same_draws():
    (x, y), (test_x, test_y) = blobs(), blobs(seed=1)
    result = few_shot.evaluate(x, y, test_x, test_y, shots=(1, 5, 30), draws=3, seed=7)
    mean, deviation = x.astype(np.float64).mean(0), x.astype(np.float64).std(0)
    for draw in range(3):
        rng = np.random.default_rng([7, draw])
        order = [rng.permutation(np.flatnonzero(y == c)) for c in range(4)]
        for i, count in enumerate((1, 5, 30)):
            rows = np.concatenate([o[:count] for o in order])
            oracle = Ridge(alpha=20.0).fit((x[rows] - mean) / deviation, np.eye(4)[y[rows]])
            predicted = oracle.predict((test_x - mean) / deviation).argmax(1)
            assert result["draws"][i][draw] == pytest.approx(np.mean(predicted == test_y))
    assert result["accuracy"] == pytest.approx([np.mean(d) for d in result["draws"]])
    assert result["std"] == pytest.approx([np.std(d, ddof=1) for d in result["draws"]])
    # Student's t for 2 degrees of freedom is 4.303.
    assert result["ci95"] == pytest.approx([4.303 * s / 3**0.5 for s in result["std"]], rel=1e-3)
    assert result["accuracy"][0] < result["accuracy"][2]


def test_shots_above_the_rarest_class_are_left_out():
    x, y = blobs()
    rare = (y != 3) | (np.arange(240) < 24)  # 6 of class 3
    result = few_shot.evaluate(x[rare], y[rare], x, y, draws=1)
    assert result["shots"] == [1, 2, 5]
    assert result["ci95"] == [0.0] * 3


def test_class_that_train_lacks_counts_as_missed():
    train, (test_x, test_y) = blobs(noise=0.3), blobs(seed=1, noise=0.3)
    names = np.array([7, 2, 40, 11])
    unseen = np.where(test_y == 3, 99, names[test_y])
    result = few_shot.evaluate(train[0], names[train[1]], test_x, unseen, shots=(50,), draws=1)
    assert result["accuracy"] == [pytest.approx(0.75, abs=0.02)]


def test_ridge_makes_no_gram_matrix_of_the_longer_side():
    shapes = (jax.ShapeDtypeStruct(s, np.float32) for s in ((4000, 32), (4000, 10), ()))
    text = few_shot.ridge.lower(*shapes).compile().as_text()
    assert "4000,4000" not in text
