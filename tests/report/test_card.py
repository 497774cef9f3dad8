import json
import re

import pytest
from test_pictures import HOSTILE
from written_run import change_config, write_evaluation

from ssl_jax.report import card, files

FACTS = {"Architecture": "resnet10, width 0.25", "Input": "[n, 32, 32, 3] in [0, 1]"}


@pytest.fixture
def hub():
    return pytest.importorskip("huggingface_hub")


def written(run, **options):
    options = {
        "name": "mine",
        "license": "apache-2.0",
        "usage": "import x",
        "facts": FACTS,
    } | options
    return card.markdown(run, **options)


def test_the_hub_reads_license_tags_and_results(finished_run, hub):
    few = {"shots": [1, 5], "accuracy": [0.5, 0.71], "ci95": [0.2, 0.1]}
    write_evaluation(finished_run, "few_shot", "few_shot", {"simclr": few})
    other = {"simclr": {"accuracy": 0.25}}
    write_evaluation(finished_run, "t_knn", "knn", other, data="tfds:cifar100")
    text = written(files.read(finished_run), facts={"library_name": "timm", **FACTS})
    data = hub.ModelCard(text).data
    assert (data.license, data.library_name, data.model_name) == ("apache-2.0", "timm", "mine")
    assert {"ssl_jax", "self-supervised-learning", "simclr"} <= set(data.tags)
    found = {(r.dataset_name, r.metric_name): r.metric_value for r in data.eval_results}
    assert found == {
        ("cifar10", "Top-1, Linear, 10 labels per class (%)"): 81.25,
        ("cifar10", "Top-1, kNN, k = 20 (%)"): 81.25,
        ("cifar10", "Top-1, Few labels, 1 per class (%)"): 50.0,
        ("cifar10", "Top-1, Few labels, 5 per class (%)"): 71.0,
        ("cifar100", "Top-1, kNN, k = ? (%)"): 25.0,
    }
    assert "library" not in text.partition("\n---\n")[2]


def test_numbers_stand_beside_protocol_and_baselines(finished_run):
    write_evaluation(finished_run, "label_free", "label_free", {"simclr": {"rankme": 12.34}})
    text = written(files.read(finished_run))
    row = next(line for line in text.splitlines() if line.startswith("| Linear, 10"))
    assert row == (
        "| Linear, 10 labels per class | 81.2 ± 2.1 (sd) | – | 43.8 ± 1.0 (sd) | "
        r"score: top-1 \& more |"
    )
    for words in (
        "| RankMe | 12.3 |",
        "standard deviation over draws",
        "of step 500",
        "temperature",
    ):
        assert words in text
    assert "It has seen cifar10 alone" in text
    assert "Not above a baseline" not in text


def test_what_no_baseline_surpasses_is_a_limit_otherwise(finished_run):
    worse = {"simclr": {"accuracy": 0.4}, "raw pixels": {"accuracy": 0.41}}
    write_evaluation(finished_run, "knn", "knn", worse, protocol={"k": 5})
    assert "Not above a baseline in: kNN, k = 5." in written(files.read(finished_run))


def test_weights_of_no_run(hub):
    text = written(None, license="Some licence, see there")
    data = hub.ModelCard(text).data
    assert (data.license, data.license_name) == ("other", "Some licence, see there")
    assert data.eval_results is None
    assert "Nothing on this card was measured" in text
    assert "| Architecture | resnet10, width 0.25 |" in text
    assert "Not stated" in written(None, license="")


@pytest.mark.parametrize(
    "text", [*HOSTILE, "---\nlicense: mit\n---", '"\\', "\ud800", "\x7f\x85: ["]
)
def test_hostile_text_stays_text(finished_run, hub, text):
    change_config(
        finished_run,
        method={"name": text, "x": text},
        data={"source": text},
        model={text or "x": [text]},
    )
    write_evaluation(
        finished_run, "odd", text, {text: {"accuracy": 0.5}}, protocol={"classifier": text}
    )
    write_evaluation(finished_run, "t", "knn", {text: {"accuracy": 0.5}}, data=text)
    run = files.read(finished_run)
    made = written(
        run, name=text, license=text, facts={text: text}, usage=f"x = {text!r}\n```\n# no"
    )
    made.encode()
    loaded = hub.ModelCard(made)
    assert loaded.data.license == "other"
    assert "mit" not in str(loaded.data.license)
    assert len(loaded.data.eval_results) == 2 + 2
    headings = re.findall(r"^#+ \w+", made, re.MULTILINE)
    expected = ["## Use", "## Facts", "## Training", "## Evaluation", "## Limits", "## Licence"]
    assert [h for h in headings if h in expected] == expected
    assert made.count("\n---\n") == 1
    assert "````python" in made
    rows = [line for line in made.splitlines() if line.startswith("| ")]
    assert all(line.endswith(" |") for line in rows)


def test_folders_of_the_machine_are_left_out(finished_run):
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
    text = written(files.read(finished_run))
    assert "/home" not in text
    assert "~" not in text
    for words in ("from simclr", "| method.teacher | teacher |", "Fine-tuned", "fine-tuned with"):
        assert words in text


def test_escapes_by_hand():
    assert card.escape("a_b|<i>\n# `x`") == r"a\_b\|\<i\> \# \`x\`"
    assert card.escape("- x") == r"\- x"
    assert card.escape("1. x") == r"1\. x"
    assert card.escape("0.5, 3 - 4") == "0.5, 3 - 4"
    assert len(card.escape("x" * 999)) == 300
    assert card.fenced("```") == "````\n```\n````"


def test_json_of_the_evaluations_may_be_odd(finished_run):
    (finished_run / "eval" / "odd.json").write_text(json.dumps({"results": {"simclr": 3}}))
    write_evaluation(finished_run, "few", "few_shot", {"simclr": {"shots": [1]}})
    assert "## Evaluation" in written(files.read(finished_run))
