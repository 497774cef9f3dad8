import json

import numpy as np
import pytest

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.evals import files, suite, table


# The shape of test_linear.py, which the solver is compiled for already.
def feature_set(n: int = 200, noise: float = 2.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = (np.arange(2 * n) % 4).astype(np.int32)
    x = (np.eye(4, 20)[y] * 3 + noise * rng.normal(size=(2 * n, 20))).astype(np.float32)
    return x[:n], y[:n], x[n:], y[n:]


@pytest.fixture(scope="module")
def results():
    sets = {"simclr": feature_set(noise=1.0), "raw pixels": feature_set(noise=4.0)}
    return suite.run(
        sets, step=40, k=500, temperature=0.1, labels_per_class=(4, 0), draws=3, l2=(0.1, 0.01)
    )[0]


def test_one_file_per_protocol_in_the_agreed_format(results, tmp_path):
    files.write(tmp_path, results)
    names = sorted(p.name for p in (tmp_path / "eval").iterdir())
    assert names == ["knn.json", "linear.json", "linear_4.json"]
    for name, result in results.items():
        assert json.loads((tmp_path / "eval" / f"{name}.json").read_text()) == result
        assert set(result) == {"evaluation", "protocol", "step", "results"}
        assert result["step"] == 40
        for numbers in result["results"].values():
            assert {"accuracy", "std", "draws", "n_train", "n_test"} <= set(numbers)
            assert (numbers["n_train"], numbers["n_test"]) == (200, 200)


def test_numbers_say_what_was_used(results):
    assert results["knn"]["protocol"]["k"] == 500
    assert results["knn"]["results"]["simclr"]["k"] == 200
    assert results["linear_4"]["results"]["simclr"]["n_labels"] == 16
    assert results["linear"]["results"]["simclr"]["n_labels"] == 200
    assert [len(results[n]["results"]["simclr"]["draws"]) for n in results] == [1, 3, 1]
    for result in results.values():
        good, bad = (result["results"][n]["accuracy"] for n in ("simclr", "raw pixels"))
        assert good > bad + 0.1


def test_table_has_all_numbers(results):
    shown = table.text(results)
    head, _, *rows = shown.splitlines()
    for words in ("linear, 4 labels/class", "linear, all labels", "500-NN"):
        assert words in head
    assert head.index("4 labels") < head.index("all labels") < head.index("500-NN")
    assert [r.split("  ")[0] for r in rows] == ["simclr", "raw pixels"]
    few = results["linear_4"]["results"]["simclr"]
    assert f"{100 * few['accuracy']:.2f} ± {100 * few['std']:.2f}" in rows[0]
    assert f"{100 * results['knn']['results']['raw pixels']['accuracy']:.2f}" in rows[1]
    assert len({len(line) for line in shown.splitlines()}) == 1


def test_only_the_evaluations_asked_for():
    sets = {"simclr": feature_set()}
    assert set(suite.run(sets, step=0, evals=("knn",), k=5)[0]) == {"knn"}


@pytest.mark.parametrize("split", [1, 3])
def test_missing_labels_are_counted(split):
    arrays = list(feature_set())
    arrays[split] = np.where(np.arange(200) < 7, -1, arrays[split])
    with pytest.raises(Fault, match="7 of the 200") as fault:
        suite.run({"simclr": tuple(arrays)}, step=0)
    assert fault.value.code == BAD_DATA


def test_a_single_class_is_refused():
    train_x, train_y, test_x, test_y = feature_set()
    with pytest.raises(Fault, match=r"only class \[0\]") as fault:
        suite.run({"simclr": (train_x, 0 * train_y, test_x, test_y)}, step=0)
    assert fault.value.code == BAD_DATA


def test_sample_keeps_at_most_its_limit(tmp_path):
    n = files.MAX_SAMPLE + 5
    files.write_sample(
        tmp_path,
        features=np.ones((n, 3)),
        label=np.zeros(n, int),
        image=np.zeros((n, 4, 4, 3), np.uint8),
        index=np.arange(n),
        classes=("a", "b"),
        saliency=np.zeros((2, 4, 4)),
    )
    with np.load(tmp_path / "eval" / "sample.npz") as sample:
        assert sample["features"].shape == (files.MAX_SAMPLE, 3)
        assert sample["classes"].tolist() == ["a", "b"]
        assert [sample[k].dtype for k in ("features", "label", "image", "index")] == [
            "f4", "i4", "u1", "i8",
        ]  # fmt: skip
    assert [p.name for p in (tmp_path / "eval").iterdir()] == ["sample.npz"]
