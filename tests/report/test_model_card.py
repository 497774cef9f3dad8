import json
import re

import pytest
from written_run import HOSTILE, change_config, write_evaluation

from ssl_jax.report import model_card, run_files

FACTS = {"Architecture": "resnet10, width 0.25", "Input": "[n, 32, 32, 3] in [0, 1]"}


@pytest.fixture
def hub():
    return pytest.importorskip("huggingface_hub")


def markdown(run, **options):
    options = {
        "name": "mine",
        "license": "apache-2.0",
        "usage": "import x",
        "facts": FACTS,
    } | options
    return model_card.markdown(run, **options)


def test_the_hub_reads_license_tags_and_results(finished_run, hub):
    few = {"shots": [1, 5], "accuracy": [0.5, 0.71], "ci95": [0.2, 0.1]}
    write_evaluation(finished_run, "few_shot", "few_shot", {"simclr": few})
    other = {"simclr": {"accuracy": 0.25}}
    write_evaluation(finished_run, "t_knn", "knn", other, data="tfds:cifar100")
    text = markdown(run_files.read_run(finished_run), facts={"library_name": "timm", **FACTS})
    data = hub.ModelCard(text).data
    assert (data.license, data.library_name, data.model_name) == ("apache-2.0", "timm", "mine")
    assert {"ssl_jax", "self-supervised-learning", "simclr"} <= set(data.tags)
    results = {(r.dataset_name, r.metric_name): r.metric_value for r in data.eval_results}
    assert results == {
        ("cifar10", "Top-1, Linear, 10 labels per class (%)"): 81.25,
        ("cifar10", "Top-1, kNN, k = 20 (%)"): 81.25,
        ("cifar10", "Top-1, Few labels, 1 per class (%)"): 50.0,
        ("cifar10", "Top-1, Few labels, 5 per class (%)"): 71.0,
        ("cifar100", "Top-1, kNN, k = ? (%)"): 25.0,
    }
    assert "library" not in text.partition("\n---\n")[2]


def test_accuracies_are_listed_with_baselines_and_protocol(finished_run):
    measures = {"simclr": {"rankme": 12.34}, "damaged": 3}
    write_evaluation(finished_run, "label_free", "label_free", measures)
    text = markdown(run_files.read_run(finished_run))
    row = next(line for line in text.splitlines() if line.startswith("| Linear, 10"))
    assert row == (
        "| Linear, 10 labels per class | 81.2 ± 2.1 (sd) | – | 43.8 ± 1.0 (sd) | "
        r"score: top-1 \& more |"
    )
    for words in (
        "| RankMe | 12.3 | – |",
        "standard deviation over draws",
        "at step 500",
        "temperature",
    ):
        assert words in text
    assert "trained only on cifar10" in text
    assert "Not above a baseline" not in text


def test_an_accuracy_not_above_a_baseline_is_listed_as_a_limit(finished_run):
    worse = {"simclr": {"accuracy": 0.4}, "raw pixels": {"accuracy": 0.41}}
    write_evaluation(finished_run, "knn", "knn", worse, protocol={"k": 5})
    assert "Not above a baseline in: kNN, k = 5." in markdown(run_files.read_run(finished_run))


def test_card_without_a_run(hub):
    text = markdown(None, license="Some licence, see there")
    data = hub.ModelCard(text).data
    assert (data.license, data.license_name) == ("other", "Some licence, see there")
    assert data.eval_results is None
    assert "No number on this card was measured" in text
    assert "| Architecture | resnet10, width 0.25 |" in text
    assert "Not stated" in markdown(None, license="")


@pytest.mark.parametrize(
    "text", [*HOSTILE, "---\nlicense: mit\n---", '"\\', "\ud800", "\x7f\x85: ["]
)
def test_hostile_text_is_escaped(finished_run, hub, text):
    change_config(
        finished_run,
        method={"name": text, "x": text},
        data={"source": text},
        model={text or "x": [text]},
    )
    write_evaluation(
        finished_run, "unknown", text, {text: {"accuracy": 0.5}}, protocol={"classifier": text}
    )
    write_evaluation(finished_run, "t", "knn", {text: {"accuracy": 0.5}}, data=text)
    run = run_files.read_run(finished_run)
    card = markdown(
        run, name=text, license=text, facts={text: text}, usage=f"x = {text!r}\n```\n# no"
    )
    card.encode()
    loaded = hub.ModelCard(card)
    assert loaded.data.license == "other"
    assert "mit" not in str(loaded.data.license)
    assert len(loaded.data.eval_results) == 2 + 2
    headings = re.findall(r"^#+ \w+", card, re.MULTILINE)
    expected = ["## Use", "## Facts", "## Training", "## Evaluation", "## Limits", "## Licence"]
    assert [h for h in headings if h in expected] == expected
    assert card.count("\n---\n") == 1
    assert "````python" in card
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    assert all(line.endswith(" |") for line in rows)


def test_folders_of_the_training_machine_are_left_out(finished_run):
    change_config(
        finished_run,
        data={"dir": "/home/me/data"},
        method={"teacher": "/home/me/runs/teacher"},
        finetune={"pretrained": "~/runs/simclr"},
    )
    protocol = {"classifier": "linear, from /home/me/runs/simclr"}
    write_evaluation(
        finished_run, "finetune", "finetune", {"simclr": {"accuracy": 1}}, protocol=protocol
    )
    text = markdown(run_files.read_run(finished_run))
    assert "/home" not in text
    assert "~" not in text
    for words in ("from simclr", "| method.teacher | teacher |", "Fine-tuned", "fine-tuned with"):
        assert words in text


def test_escape_matches_hand_written_markdown():
    assert model_card.escape("a_b|<i>\n# `x`") == r"a\_b\|\<i\> \# \`x\`"
    assert model_card.escape("- x") == r"\- x"
    assert model_card.escape("1. x") == r"1\. x"
    assert model_card.escape("0.5, 3 - 4") == "0.5, 3 - 4"
    assert len(model_card.escape("x" * 999)) == 300
    assert model_card.fenced("```") == "````\n```\n````"


def test_malformed_evaluations_do_not_stop_the_card(finished_run):
    (finished_run / "eval" / "malformed.json").write_text(json.dumps({"results": {"simclr": 3}}))
    write_evaluation(finished_run, "few", "few_shot", {"simclr": {"shots": [1]}})
    assert "## Evaluation" in markdown(run_files.read_run(finished_run))
