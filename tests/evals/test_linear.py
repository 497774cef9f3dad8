import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssl_jax.data.labels import draw_labels
from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.evals import draws, linear, logistic


# Most tests share one shape: compiling the solver takes seconds, running it milliseconds.
def blobs(n: int = 200, f: int = 20, classes: int = 4, noise: float = 3.0, seed: int = 0):
    """Makes correlated features of very different scales, around class centres."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = np.random.default_rng(99).normal(size=(classes, f))
    x = centres[y] + noise * rng.normal(size=(n, f))
    mix = np.random.default_rng(98).normal(size=(f, f)) * np.logspace(0, -1.5, f)
    return (x @ mix).astype(np.float32), y


def sweep(*arrays, **options):
    return linear.sweep(*arrays, **options)[0]


def standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / x.std(0)


@pytest.mark.parametrize("n", [200, 16])  # more and fewer rows than features
@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-3])
def test_fit_equals_sklearn(n, l2):
    x, y = blobs(n)
    x = standardised(x)
    fitted = logistic.fit(x, y, l2=l2, num_classes=4)
    oracle = LogisticRegression(C=1 / (n * l2), tol=1e-10, max_iter=100_000)
    oracle.fit(x.astype(np.float64), y)
    scale = np.abs(oracle.coef_).max()
    np.testing.assert_allclose(fitted.weight.T, oracle.coef_, atol=5e-3 * scale, rtol=0)
    # A constant that is added to all biases changes no probability.
    bias, oracle_bias = (b - b.mean() for b in (np.asarray(fitted.bias), oracle.intercept_))
    np.testing.assert_allclose(bias, oracle_bias, atol=5e-3 * scale, rtol=0)
    np.testing.assert_array_equal(fitted.predict(x), oracle.predict(x))
    assert fitted.iterations < 150
    assert fitted.gradient_norm <= logistic.CONVERGED


def gradient_in_float64(x, y, fitted, l2):
    """Returns the gradient at the fitted weight [f, 4] and bias [4], written out in NumPy."""
    x, weight, bias = (np.asarray(a, np.float64) for a in (x, *fitted[:2]))
    logits = x @ weight + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    error = p - np.eye(4)[y]
    return x.T @ error / len(x) + l2 * weight, error.mean(0)


def test_gradient_in_float64_is_zero_at_the_solution():
    x, y = blobs()
    x = standardised(x).astype(np.float64)
    fitted = logistic.fit(x, y, l2=1e-2, num_classes=4)
    by_weight, by_bias = gradient_in_float64(x, y, fitted, 1e-2)
    assert np.abs(by_weight).max() < 5e-5
    assert np.abs(by_bias).max() < 5e-5


@pytest.mark.parametrize("l2", [1.0, 1e-3])
def test_gradient_norm_equals_numpy_and_falls_with_the_iterations(l2):
    x, y = blobs()
    x = standardised(x)
    norms = []
    for cap in (1, 6):
        fitted = logistic.fit(x, y, l2=l2, num_classes=4, max_iterations=cap)
        assert fitted.iterations == cap
        by_weight, by_bias = gradient_in_float64(x, y, fitted, l2)
        rows = x[::2].astype(np.float64)  # 4 rows per feature, and at least every second one
        bound = rows.T @ rows / (2 * len(rows)) + l2 * np.eye(20)
        squares = (by_weight * np.linalg.solve(bound, by_weight)).sum() + (by_bias**2).sum()
        assert fitted.gradient_norm == pytest.approx(np.sqrt(squares), rel=1e-3)
        norms.append(float(fitted.gradient_norm))
    assert norms[0] > 3 * norms[1] > 3 * logistic.TOLERANCE
    whole = logistic.fit(x, y, l2=l2, num_classes=4)
    assert 6 < whole.iterations < logistic.MAX_ITERATIONS


def test_fit_converges_on_features_that_are_mostly_zero():
    # Rare large values make the Hessian far smaller than its bound. Then single
    # iterations decrease the loss by less than float32 resolves long before the optimum.
    x, y = blobs(noise=1.0)
    rare = np.random.default_rng(3).random((200, 20)) < 0.05
    x = standardised(np.where(rare, x, 0))
    fitted = logistic.fit(x, y, l2=1e-4, num_classes=4)
    assert fitted.gradient_norm <= logistic.CONVERGED
    oracle = LogisticRegression(C=1 / (200 * 1e-4), tol=1e-10, max_iter=100_000)
    oracle.fit(x.astype(np.float64), y)
    scale = np.abs(oracle.coef_).max()
    np.testing.assert_allclose(fitted.weight.T, oracle.coef_, atol=5e-3 * scale, rtol=0)


def test_sweep_states_iterations_norm_and_convergence_of_every_draw(monkeypatch):
    train, test = blobs(), blobs(seed=1)
    options = {"labels_per_class": 4, "draws": 2, "l2": (0.1, 0.01)}
    whole = sweep(*train, *test, **options)
    assert whole["converged"] is True
    assert max(whole["gradient_norm"]) <= logistic.CONVERGED
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 1)
    capped = sweep(*train, *test, **options)
    assert capped["converged"] is False
    assert capped["iterations"] == [1, 1]
    assert len(whole["iterations"]) == 2
    assert min(whole["iterations"]) > 1
    assert min(capped["gradient_norm"]) > logistic.CONVERGED


def test_fit_to_features_that_are_not_finite_has_not_converged():
    train, test = blobs(), blobs(seed=1)
    x = train[0].copy()
    x[0, 0] = np.nan
    numbers = sweep(x, train[1], *test, l2=(0.1,))
    assert (numbers["converged"], numbers["gradient_norm"]) == (False, [None])


def test_held_out_rows_have_no_influence():
    x, y = blobs()
    used = np.arange(200) % 5 != 0
    problem = logistic.prepare(x := standardised(x), y)
    start = problem.zeros(4)
    fitted = logistic.solve(problem, used.astype(np.float32), 1e-2, start, 1e-5, 300)
    oracle = LogisticRegression(C=1 / (used.sum() * 1e-2), tol=1e-10, max_iter=100_000)
    oracle.fit(x[used].astype(np.float64), y[used])
    weight = problem.axes @ fitted.weight
    np.testing.assert_allclose(weight.T, oracle.coef_, atol=1e-3 * np.abs(oracle.coef_).max())


@pytest.mark.parametrize("labels_per_class", [0, 4])
def test_accuracy_equals_sklearn_at_the_chosen_l2(labels_per_class):
    train, test = blobs(), blobs(seed=1)
    numbers = sweep(*train, *test, labels_per_class=labels_per_class, seed=5)
    rows = np.arange(200)
    if labels_per_class:
        rng = np.random.default_rng([5, 0])
        rows = draw_labels(train[1], labels_per_class, rng=rng, names=np.arange(4))
    mean, deviation = train[0].mean(0), train[0].std(0)
    x, target = ((a - mean) / deviation for a in (train[0][rows], test[0]))
    oracle = LogisticRegression(C=1 / (len(rows) * numbers["l2"][0]), tol=1e-9, max_iter=100_000)
    oracle.fit(x.astype(np.float64), train[1][rows])
    assert numbers["accuracy"] == pytest.approx(oracle.score(target, test[1]), abs=1 / 200 + 1e-9)
    assert numbers["n_labels"] == (4 * labels_per_class or 200)
    assert 0.3 < numbers["accuracy"] < 0.99


def test_test_labels_do_not_influence_the_choice():
    train, (test_x, test_y) = blobs(noise=1.0), blobs(noise=1.0, seed=1)
    shuffled = np.random.default_rng(0).permutation(test_y)
    for count in (0, 4):
        a = sweep(*train, test_x, test_y, labels_per_class=count, draws=2)
        b = sweep(*train, test_x, shuffled, labels_per_class=count, draws=2)
        assert a["l2"] == b["l2"]
        assert b["accuracy"] < 0.4 < a["accuracy"]


def test_selection_prefers_the_l2_that_generalises():
    # Pure noise in 60 features, one that carries the class: weak penalties overfit 120 rows. One
    # draw of the data can end in a tie that rounding decides; the mean over draws cannot.
    chosen, worst, best = [], [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        y = np.arange(2120) % 2
        x = rng.normal(size=(2120, 60)).astype(np.float32)
        x[:, 0] += 3 * y
        split = x[:120], y[:120], x[120:], y[120:]
        chosen.append(sweep(*split)["accuracy"])
        each = [sweep(*split, l2=(l2,))["accuracy"] for l2 in linear.L2]
        worst.append(min(each))
        best.append(max(each))
    gain, gap = np.mean(chosen) - np.mean(worst), np.mean(best) - np.mean(worst)
    assert gain > 0.6 * gap
    assert gap > 0.05


def test_draws_are_reproducible_stratified_and_differ():
    train, test = blobs(), blobs(seed=1)
    runs = [
        sweep(*train, *test, labels_per_class=4, draws=3, seed=s, l2=(0.1, 0.01)) for s in (0, 0, 1)
    ]
    assert runs[0] == runs[1]
    assert runs[0]["draws"] != runs[2]["draws"]
    assert len(runs[0]["draws"]) == 3
    assert runs[0]["accuracy"] == pytest.approx(np.mean(runs[0]["draws"]))
    assert runs[0]["std"] == pytest.approx(np.std(runs[0]["draws"], ddof=1))
    rng = np.random.default_rng(0)
    rows = draw_labels(train[1], 4, rng=rng, names=np.arange(4))
    assert len(set(rows.tolist())) == 16
    assert np.bincount(train[1][rows]).tolist() == [4, 4, 4, 4]


def test_folds_are_stratified():
    codes = np.repeat([0, 1, 2], [50, 23, 4])
    fold = draws.stratified_folds(codes, 5, np.random.default_rng(0))
    for rows in (fold, fold[codes == 0], fold[codes == 1], fold[codes == 2]):
        counts = np.bincount(rows, minlength=5)
        assert counts.max() - counts.min() <= 1


def test_labels_may_be_any_integers_and_classes_may_be_absent_from_train():
    train, test = blobs(noise=0.3), blobs(noise=0.3, seed=1)
    names = np.array([7, 2, 40, 11])
    plain = sweep(*train, *test, l2=(0.01,))
    renamed = sweep(train[0], names[train[1]], test[0], names[test[1]], l2=(0.01,))
    assert plain["accuracy"] == renamed["accuracy"] > 0.95
    unseen = np.where(test[1] == 3, 99, test[1])
    missed = sweep(*train, test[0], unseen, l2=(0.01,))
    assert missed["accuracy"] == pytest.approx(plain["accuracy"] - 0.25, abs=0.02)


def test_constant_features_are_harmless():
    (x, y), (test_x, test_y) = blobs(), blobs(seed=1)
    x[:, :2], test_x[:, :2] = 3.3, 3.4
    accuracy = sweep(x, y, test_x, test_y, l2=(0.01,))["accuracy"]
    mean, deviation = x[:, 2:].mean(0), x[:, 2:].std(0)
    oracle = LogisticRegression(C=1 / (200 * 0.01), tol=1e-9, max_iter=100_000)
    oracle.fit((x[:, 2:] - mean) / deviation, y)
    expected = oracle.score((test_x[:, 2:] - mean) / deviation, test_y)
    assert accuracy == pytest.approx(expected, abs=1 / 200 + 1e-9)


def test_message_for_too_few_labels_names_the_class():
    train, test = blobs(), blobs()
    with pytest.raises(Fault, match="class 0 has 50") as fault:
        sweep(*train, *test, labels_per_class=51)
    assert fault.value.code == BAD_DATA
    with pytest.raises(Fault, match="one label per class"):
        sweep(*train, *test, labels_per_class=1)
    assert sweep(*train, *test, labels_per_class=1, l2=(0.1,))["n_labels"] == 4
