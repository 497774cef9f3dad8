"""Early stopping: the decision by itself, and runs that end early, are killed and resume."""

import json
import signal

import jax
import numpy as np
import pytest
from test_train import (
    arrays,
    assert_same_run,
    folder_config,
    losses,
    photographs,
    run,
    small,
    tiny_encoder,
)

from ssl_jax import build, components, parallel
from ssl_jax import config as configuration
from ssl_jax.errors import Fault
from ssl_jax.evals import online_knn
from ssl_jax.report import page
from ssl_jax.training import early_stop
from ssl_jax.training.early_stop import EarlyStop


def stops_at(scores, patience, every=1, on="knn"):
    """Returns the step at which a run with these scores ends; None if it trains all steps."""
    values = iter(scores)
    early = EarlyStop(on, every, patience, None, lambda state: next(values))
    for step in range(1, len(scores) * every + 1):
        early.add({"probe_accuracy": 0.0})
        if early.is_due(step):
            early.evaluate(step, None)
        if early.stopped:
            return step
    return None


@pytest.mark.parametrize(
    ("scores", "patience", "step"),
    [
        ([0.1, 0.2, 0.3, 0.4], 1, None),
        ([0.3, 0.2, 0.4, 0.3, 0.3], 2, 5),
        ([0.3, 0.2, 0.1, 0.4], 2, 3),
        ([0.3, 0.3, 0.3], 2, 3),  # an equal score is not better
        ([0.3, 0.2, 0.31, 0.2, 0.32], 2, None),
        ([0.3, float("nan"), float("nan")], 2, 3),
    ],
)
def test_a_run_ends_after_patience_evaluations_without_a_new_best(scores, patience, step):
    assert stops_at(scores, patience) == step
    assert stops_at(scores, patience, every=10) == (step and 10 * step)
    assert stops_at(scores, patience, on="") is None


def test_the_probe_score_is_the_mean_since_the_last_evaluation():
    early = EarlyStop("probe", 3, 2, None)
    accuracies = [0.0, 0.3, 0.6, 0.9, 0.9, 0.6]
    scores = []
    for step, accuracy in enumerate(accuracies, 1):
        early.add({"probe_accuracy": accuracy})
        if early.is_due(step):
            scores.append(early.evaluate(step, None)["stopping_score"])
    np.testing.assert_allclose(scores, [0.3, 0.8], rtol=1e-6)


def test_resuming_between_evaluations_gives_the_same_decision():
    rng = np.random.Generator(np.random.PCG64(2))
    accuracies = rng.random(60).astype(np.float32).tolist()

    def trained(early, steps):
        for step in steps:
            early.add({"probe_accuracy": accuracies[step - 1]})
            if early.is_due(step):
                early.evaluate(step, None)
        return early

    whole = trained(EarlyStop("probe", 7, 3, None), range(1, 51)).meta
    for cut in (3, 7, 24):
        first = json.loads(
            json.dumps(trained(EarlyStop("probe", 7, 3, None), range(1, cut + 1)).meta)
        )
        resumed = trained(EarlyStop("probe", 7, 3, first["early_stop"]), range(cut + 1, 51))
        assert resumed.meta == whole


def test_other_settings_begin_anew_and_another_patience_continues():
    early = EarlyStop("knn", 1, 2, None, lambda state: 0.5)
    for step in (1, 2, 3):
        early.evaluate(step, None)
    saved = early.meta["early_stop"]
    assert early.stopped
    assert EarlyStop("knn", 1, 2, saved).stopped
    assert not EarlyStop("knn", 1, 3, saved).stopped
    assert not EarlyStop("knn", 2, 2, saved).stopped
    assert not EarlyStop("probe", 1, 2, saved).stopped
    assert EarlyStop("", 1, 2, saved).meta == {}
    assert early.reason(3, 10) == (
        "stopped early at step 3 of 10: the kNN accuracy has not risen above 50.0% (step 1) in "
        "2 evaluations"
    )


STOPS = {"train__stop_on": "probe", "train__stop_every": 2, "train__steps": 12}


@pytest.fixture
def best_at_step_4(monkeypatch):
    """The probe is best in the steps up to 4, whatever the labels."""
    add = EarlyStop.add

    def constant(self, metrics):
        step = self._numbers["steps"] + 2 * (self._numbers["best"] is not None)
        add(self, metrics | {"probe_accuracy": 0.5 if step >= 2 else 0.4})

    monkeypatch.setattr(EarlyStop, "add", constant)


@pytest.fixture
def stopped(tmp_path, best_at_step_4):
    """A run with the best score at step 4, which ends at step 8."""
    path = tmp_path / "stopped"
    run(small(**STOPS, train__stop_patience=2, train__log_every=3), path)
    return path


def test_an_early_stopped_run_is_complete_and_says_so(stopped, capfd):
    reason = "stopped early at step 8 of 12: the probe accuracy has not risen above 50.0% (step 4)"
    metadata = json.loads((stopped / "metadata.json").read_text())
    assert metadata["stopped_early"]["step"] == 8
    assert metadata["stopped_early"]["reason"] == f"{reason} in 2 evaluations"
    rows = [json.loads(line) for line in (stopped / "metrics.jsonl").read_text().splitlines()]
    assert scores(stopped) == pytest.approx({2: 0.4, 4: 0.5, 6: 0.5, 8: 0.5})
    assert [row["step"] for row in rows if "loss" in row] == [2, 3, 4, 6, 8]
    assert reason in page.write(stopped).read_text()
    before = (stopped / "metrics.jsonl").read_bytes()
    capfd.readouterr()
    run(small(**STOPS, train__stop_patience=2, train__log_every=3), stopped)
    assert reason in capfd.readouterr().out
    assert (stopped / "metrics.jsonl").read_bytes() == before
    assert (stopped / "checkpoints" / "8" / "MANIFEST.json").exists()
    assert not (stopped / "checkpoints" / "12").exists()


def test_an_early_stopped_run_goes_on_if_it_is_told_to(stopped, tmp_path):
    with pytest.raises(Fault, match=r"--allow_change=train\.stop_on"):
        run(small(**STOPS | {"train__stop_on": ""}, train__stop_patience=2), stopped)
    run(small(**STOPS | {"train__stop_on": ""}, train__stop_patience=2), stopped, ["train.stop_on"])
    run(small(train__steps=12), tmp_path / "plain")
    assert "stopped_early" not in json.loads((stopped / "metadata.json").read_text())
    # The evaluations change no bit of the training.
    one, two = arrays(stopped, 12), arrays(tmp_path / "plain", 12)
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], err_msg=name)


@pytest.fixture
def falling(monkeypatch):
    """Makes the score of every evaluation lower than the one before."""
    evaluate, now = EarlyStop.evaluate, {}

    def with_step(self, step, state):
        now["step"] = step
        return evaluate(self, step, state)

    monkeypatch.setattr(EarlyStop, "evaluate", with_step)
    monkeypatch.setattr(early_stop, "_of_process_0", lambda score: score - now["step"])


@pytest.mark.parametrize("on", ["probe", "knn"])
def test_a_run_interrupted_between_evaluations_ends_at_the_same_step(
    on, tmp_path, monkeypatch, falling
):
    config = small(**STOPS | {"train__stop_on": on, "train__stop_every": 3}, train__stop_patience=1)
    run(config, tmp_path / "whole")
    path, to_global, count = tmp_path / "cut", parallel.to_global, iter(range(100))

    def interrupted(batch, mesh):
        if "views" in batch and next(count) == 4:
            signal.raise_signal(signal.SIGTERM)
        return to_global(batch, mesh)

    monkeypatch.setattr(parallel, "to_global", interrupted)
    with pytest.raises(Fault, match="saved step 5"):
        run(config, path)
    monkeypatch.setattr(parallel, "to_global", to_global)
    run(config, path)
    assert max(losses(path)) == 6
    assert scores(path) == scores(tmp_path / "whole")
    assert_same_run(path, tmp_path / "whole", 6)


def scores(path):
    rows = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["stopping_score"] for row in rows if "stopping_score" in row}


def test_knn_classifies_a_fifth_of_a_sample_of_the_training_images(monkeypatch):
    neighbors = pytest.importorskip("sklearn.neighbors")
    monkeypatch.setattr("ssl_jax.models.get", tiny_encoder)
    monkeypatch.setattr(online_knn, "SAMPLE", 303)
    config = small(train__stop_on="knn", eval__knn_k=1, eval__crop=0.5)
    parts = build.parts(config, parallel.make_mesh(jax.devices()[:4]))
    with jax.set_mesh(parts.mesh):
        state = parts.new_state()
        score = online_knn.scorer(config, parts)(state)
        source = parts.source
        rows = np.sort(np.random.default_rng(0).permutation(source.size)[:303])
        config.eval.crop = 1.0
        batches = components.eval_batches(config, source, indices=rows, batch_size=303)
        (batch,) = list(batches)
        x = parts.input.to_model(batch["input"])
        features = np.float64(parts.method.features(state.params, state.extra, x))
    unit, label = features / np.linalg.norm(features, axis=1, keepdims=True), batch["label"]
    query = np.arange(303) % 5 == 0
    classifier = neighbors.KNeighborsClassifier(
        20,
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / 0.1),
    ).fit(unit[~query], label[~query])
    assert query.sum() == 61
    assert score == pytest.approx(classifier.score(unit[query], label[query]), abs=1.5 / 61)
    assert 0.1 < score < 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train__stop_on": "linear"}, "train.stop_on='linear'"),
        ({"train__stop_on": "knn", "train__stop_every": 0}, "train.stop_every=0: at least 1"),
        ({"train__stop_on": "knn", "train__stop_patience": 0}, "train.stop_patience=0: at least 1"),
        ({"train__stop_on": "probe", "train__probe": False}, "'probe': needs train.probe"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    assert any(message in line for line in configuration.problems(small(**fields)))


@pytest.mark.parametrize("on", ["probe", "knn"])
def test_a_run_without_labels_is_refused_before_it_starts(on, tmp_path):
    photographs(tmp_path / "mine", 20)
    with pytest.raises(Fault, match=f"train.stop_on='{on}': .* no labels") as refused:
        run(folder_config(tmp_path / "mine", train__stop_on=on), tmp_path / "run")
    assert refused.value.code == 65


def test_the_default_stores_nothing_in_the_checkpoints(tmp_path):
    run(small(train__steps=2), tmp_path / "run")
    content = json.loads((tmp_path / "run/checkpoints/2/MANIFEST.json").read_text())
    assert "early_stop" not in content["meta"]
