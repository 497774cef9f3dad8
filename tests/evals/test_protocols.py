import json
import re
import types

import pytest
from feature_sets import feature_set

from ssl_jax import config as configuration
from ssl_jax.evals import linear, logistic, protocols, results, table
from ssl_jax.evals.protocols import linear_sgd


def evaluate(names, sets, **options):
    """Returns {file name: evaluation} of protocols that need only features and labels."""
    config = configuration.default_config()
    config.eval.update(options)
    context = types.SimpleNamespace(
        options=config.eval,
        sets=sets,
        seed=0,
        sharding=None,
        noun="image",
        describe_examples=lambda: {"view": "whole"},
    )
    evaluations = {}
    for protocol in map(protocols.get, names):
        for file, variant in protocol.files(config.eval).items():
            measured = protocol.run(context, **variant)
            description = protocol.describe(context, measured.results, **variant)
            evaluations[file] = results.evaluation(protocol.name, description, 40, measured.results)
    return evaluations


@pytest.fixture(scope="module")
def evaluations():
    sets = {"simclr": feature_set(noise=1.0), "raw pixels": feature_set(noise=4.0)}
    options = {"knn_k": 500, "knn_temperature": 0.1, "labels_per_class": (4, 0), "draws": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "L2", (0.1, 0.01))
        return evaluate(("knn", "linear"), sets, **options)


def test_names_are_found_without_import_and_private_modules_are_left_out():
    assert protocols.names() == [
        *("analogy", "few_shot", "frames", "knn", "label_free", "layers", "linear", "linear_sgd"),
        *("neighbours", "retrieval", "similarity", "zero_shot"),
    ]  # fmt: skip
    with pytest.raises(
        ValueError, match=r"unknown protocol 'svm'; choose one of: analogy, few_shot"
    ):
        protocols.get("svm")


def test_only_protocols_without_labels_are_free_of_train_features():
    by_name = {name: protocols.get(name) for name in protocols.names()}
    assert [name for name, p in by_name.items() if not p.needs.labels] == [
        *("analogy", "label_free", "neighbours", "retrieval", "similarity"),
    ]
    assert [name for name, p in by_name.items() if p.needs.method] == [
        *("analogy", "knn", "linear", "neighbours", "retrieval", "similarity", "zero_shot"),
    ]
    assert all(p.needs.input in ("", "pair", "light") for p in by_name.values())
    assert len({p.order for p in by_name.values()}) == len(by_name)
    assert "protocols" in configuration.default_config().eval
    assert set(configuration.default_config().eval.protocols) <= set(by_name)


def test_each_number_of_labels_has_a_file_in_the_agreed_format(evaluations):
    assert set(evaluations) == {"knn", "linear", "linear_4"}
    for evaluation in evaluations.values():
        assert set(evaluation) == {"evaluation", "protocol", "step", "results"}
        assert evaluation["step"] == 40
        assert evaluation["protocol"]["view"] == "whole"
        for numbers in evaluation["results"].values():
            assert {"accuracy", "std", "draws", "n_train", "n_test"} <= set(numbers)
            assert (numbers["n_train"], numbers["n_test"]) == (200, 200)


def test_numbers_name_the_neighbours_and_labels_that_were_used(evaluations):
    assert evaluations["knn"]["protocol"]["k"] == 500
    assert evaluations["knn"]["results"]["simclr"]["k"] == 200
    assert evaluations["linear_4"]["results"]["simclr"]["n_labels"] == 16
    assert evaluations["linear"]["results"]["simclr"]["n_labels"] == 200
    draws = {name: len(e["results"]["simclr"]["draws"]) for name, e in evaluations.items()}
    assert draws == {"knn": 1, "linear_4": 3, "linear": 1}
    for evaluation in evaluations.values():
        good, bad = (evaluation["results"][n]["accuracy"] for n in ("simclr", "raw pixels"))
        assert good > bad + 0.1


def test_table_shows_all_numbers(evaluations):
    text = table.text(evaluations)
    head, _, *rows = text.splitlines()
    for words in ("linear, 4 labels/class", "linear, all labels", "500-NN"):
        assert words in head
    assert head.index("4 labels") < head.index("all labels") < head.index("500-NN")
    assert [row.split("  ")[0] for row in rows] == ["simclr", "raw pixels"]
    few = evaluations["linear_4"]["results"]["simclr"]
    assert f"{100 * few['accuracy']:.2f} ± {100 * few['std']:.2f}" in rows[0]
    assert f"{100 * evaluations['knn']['results']['raw pixels']['accuracy']:.2f}" in rows[1]
    assert len({len(line) for line in text.splitlines()}) == 1


def test_protocols_that_are_not_named_do_not_run():
    assert set(evaluate(("knn",), {"simclr": feature_set()}, knn_k=5)) == {"knn"}


@pytest.mark.parametrize("labels", [0, 4])
def test_linear_warns_of_unfinished_fits_only(labels, monkeypatch, caplog):
    monkeypatch.setattr(linear, "L2", (0.1, 0.01))
    sets = {"simclr": feature_set(noise=1.0), "raw pixels": feature_set(noise=4.0)}
    name = f"linear_{labels}" if labels else "linear"
    options = {"labels_per_class": (labels,), "draws": 2}
    finished = evaluate(("linear",), sets, **options)[name]
    assert all(numbers["converged"] for numbers in finished["results"].values())
    assert caplog.records == []
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 1)
    stopped = evaluate(("linear",), sets, **options)[name]
    assert not any(numbers["converged"] for numbers in stopped["results"].values())
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    for words in (
        f"{name}: L-BFGS",
        "above a gradient norm of 0.0001",
        "after 1 iterations",
        "simclr: ",
        "raw pixels: ",
    ):
        assert words in record.message
    assert len(re.findall(r"after 1[;,)]", record.message)) == (4 if labels else 2)
    json.dumps(stopped, allow_nan=False)


def test_linear_sgd_warns_of_rates_at_the_edge_and_of_divergence(caplog):
    good = {"lr": 1.0, "lr_at_edge": False, "held_out_accuracy": [0.1, 0.3, None]}
    linear_sgd._warn_of_rates({"simclr": good})
    assert caplog.records == []
    edge = {"lr": 100.0, "lr_at_edge": True, "held_out_accuracy": [0.1, 0.3]}
    lost = {"lr": 0.1, "lr_at_edge": False, "held_out_accuracy": [None, None]}
    linear_sgd._warn_of_rates({"simclr": good, "raw pixels": edge, "untrained encoder": lost})
    first, second = (record.message for record in caplog.records)
    assert "smallest or largest of eval.sgd_lr (raw pixels: 100)" in first
    assert "diverged on the features of untrained encoder, so" in second
