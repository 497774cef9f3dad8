import base64
import html.parser
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from written_run import change_config, write_evaluation

from ssl_jax.evals import files, results
from ssl_jax.report import evaluations, page

ROOT = pathlib.Path(__file__).resolve().parents[2]
PICTURES = ("confusion", "curves", "health", "map", "neighbours", "saliency")
VOID = {"meta", "img", "br", "link"}


class Reader(html.parser.HTMLParser):
    """Collects text and attributes of a page, and checks that tags close in order."""

    def __init__(self, text: str):
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_caption_names_the_chance_level_of_a_scaled_loss(finished_run):
    change_config(finished_run, method={"name": "simclr", "scale": 2.0})
    text = " ".join(Reader(page.write(finished_run).read_text()).words)
    assert "a loss of 2 ln 63 = 8.29" in text


def test_page_shows_accuracies_figures_and_how_to_reproduce(finished_run):
    (finished_run / "figures").mkdir()
    (finished_run / "figures" / "views.png").write_bytes(b"any bytes")
    path = page.write(finished_run)
    assert path == finished_run / "report.html"
    read = Reader(path.read_text())
    text = " ".join(read.words)
    for words in ("SimCLR on cifar10", "81.2", "± 2.1", "43.8", "Linear, 10 labels per class"):
        assert words in text
    for words in ("kNN, k = 20", "top-1 & more", "step 500", "30 test examples", "0.10.2", "4.14"):
        assert words in text
    assert "guessed among 63 candidates, a loss of ln 63 = 4.14" in text
    assert "Effective rank: number of directions" in text
    assert "Target distance" not in text
    assert "--note='<b>&'" in text  # shown as text, not as HTML
    images = [attrs["src"] for tag, attrs in read.tags if tag == "img"]
    assert len(images) == 7
    for image in images:
        base64.b64decode(image.removeprefix("data:image/png;base64,"), validate=True)


def test_page_notes_unfinished_fits_and_rates_at_the_end_of_the_grid(finished_run):
    plain = {"accuracy": 0.9, "std": 0.0, "draws": [0.9]}
    fit = plain | {"iterations": [40], "gradient_norm": [9e-6], "converged": True}
    capped = fit | {"iterations": [1000], "gradient_norm": [1e-3], "converged": False}
    results = {"simclr": capped, "raw pixels": fit, "untrained encoder": plain}
    write_evaluation(finished_run, "linear", "linear", results)
    results = {"simclr": plain | {"lr_at_edge": False}, "raw pixels": plain | {"lr_at_edge": True}}
    write_evaluation(finished_run, "linear_sgd", "linear_sgd", results)
    words = Reader(page.write(finished_run).read_text()).words
    (unfinished,) = (text for text in words if "L-BFGS stopped" in text)
    assert "Linear, all labels: L-BFGS stopped before its tolerance on SimCLR:" in unfinished
    (edge,) = (text for text in words if "end of the grid" in text)
    assert "Linear, SGD, all labels: The best rate" in edge
    assert "grid for raw pixels:" in edge


def test_lists_about_fits_are_no_axis_of_a_curve():
    layers = {"gradient_norm": [1e-6], "iterations": [9], "accuracy": [0.5], "layers": ["features"]}
    assert evaluations.curve_axis({"results": {"simclr": layers}}) == "layers"


def test_page_of_results_without_marks_has_no_such_note(finished_run):
    text = page.write(finished_run).read_text()
    assert "L-BFGS stopped" not in text
    assert "end of the grid" not in text


def test_pictures_of_the_method_are_shown_if_their_files_exist(finished_run):
    (finished_run / "figures").mkdir(exist_ok=True)
    texts = {
        "samples": {"title": "Generated images", "caption": "100 samples"},
        "missing": {"title": "Missing", "caption": "no file"},
        "../views": {"title": "Outside", "caption": "not a file name"},
    }
    (finished_run / "figures" / "pictures.json").write_text(json.dumps(texts))
    (finished_run / "figures" / "samples.png").write_bytes(b"any bytes")
    text = page.write(finished_run).read_text()
    assert "<h2>Generated images</h2>" in text
    assert base64.b64encode(b"any bytes").decode() in text
    assert "Missing" not in text
    assert "Outside" not in text


def test_a_fine_tuned_run_does_not_claim_frozen_features(finished_run):
    config = json.loads((finished_run / "config.json").read_text())
    (finished_run / "config.json").write_text(json.dumps(config | {"finetune": {}}))
    for file in (finished_run / "eval").glob("*.json"):
        file.unlink()
    evaluation = results.classifier(
        np.r_[0, 1, 1], np.r_[0, 1, 0], name="simclr", step=9, protocol={}, score="top-1 accuracy"
    )
    files.write(finished_run, {"finetune": evaluation})
    text = " ".join(Reader(page.write(finished_run).read_text()).words)
    assert "fine-tuned on some" in text
    assert "frozen" not in text
    assert "SimCLR, fine-tuned, on" in text
    assert "Own classifier" in text
    assert "66.7" in text


def test_page_needs_no_script_and_no_network(finished_run):
    text = page.write(finished_run).read_text()
    read = Reader(text)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in read.tags}
    targets = [a[key] for _, a in read.tags for key in ("src", "href") if key in a]
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert "url(" not in text
    assert "@import" not in text


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("eval", "not evaluated yet"),
        ("eval/sample.npz", "No sample of test features exists"),
        ("metrics.jsonl", "No step has been logged"),
        ("metadata.json", "No metadata.json"),
        ("config.json", "No config.json"),
        ("figures", "No picture of the views exists"),
    ],
)
def test_a_sentence_replaces_each_missing_file(finished_run, missing, sentence):
    (finished_run / "eval" / "sample.npz").unlink()  # drawing it takes seconds
    path = finished_run / missing
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    assert sentence in " ".join(Reader(page.write(finished_run).read_text()).words)


def test_page_of_a_run_with_only_a_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"method": {"name": "byol"}}))
    assert "<h1>BYOL</h1>" in page.write(tmp_path).read_text()


def test_every_kind_of_evaluation_is_shown(finished_run):
    shots = {"shots": [1, 5], "accuracy": [0.5, 0.7], "std": [0.1, 0.1], "ci95": [0.2, 0.1]}
    write_evaluation(finished_run, "few_shot", "few_shot", {"simclr": shots})
    layers = {"layers": ["stem", "block"], "accuracy": [0.4, 0.6]}
    write_evaluation(finished_run, "layers", "layers", {"simclr": layers, "raw pixels": {}})
    write_evaluation(finished_run, "label_free", "label_free", {"simclr": {"rankme": 12.34}})
    sgd = {"accuracy": 0.9, "std": 0.02, "ci95": 0.0456, "draws": [0.8, 1.0]}
    write_evaluation(finished_run, "linear_sgd", "linear_sgd", {"simclr": sgd})
    few = {"accuracy": 0.123, "std": 0.0, "draws": [0.123]}
    write_evaluation(finished_run, "transfer_x_knn", "knn", {"simclr": few}, data="tfds:<x>")
    write_evaluation(finished_run, "transfer_x_few_shot", "few_shot", {"simclr": shots}, data="<x>")
    write_evaluation(finished_run, "unknown", "new & strange", {"simclr": [1, {"<i>": "x"}]})
    write_evaluation(finished_run, "worse", "few_shot", [3])
    read = Reader(page.write(finished_run).read_text())
    text = " ".join(read.words)
    for words in ("Linear, SGD, all labels", "± 4.6", "± 2.1 (sd)", "95 % t-interval", "12.3"):
        assert words in text
    for words in ("Transfer to <x>", "saw none of these images", "new & strange"):
        assert words in text
    own, _, transfer = text.partition("Transfer to <x>")
    assert "12.3 " in transfer
    assert "30 test examples" in own
    names = {path.stem for path in (finished_run / "figures").iterdir()}
    assert {"few_shot", "layers", "transfer_x_few_shot"} <= names
    assert "worse" not in names


def test_kinds_that_the_report_does_not_know_are_shown_by_their_form(finished_run):
    epochs = {"n_train": 9, "accuracy": [0.4, 0.6], "epochs": [1, 10], "std": [0.1, 0.1]}
    write_evaluation(finished_run, "by_epoch", "by_epoch", {"simclr": epochs})
    means = {"accuracy": 0.321, "std": 0.0, "draws": [0.321]}
    write_evaluation(finished_run, "class_means", "class_means", {"simclr": means})
    text = " ".join(Reader(page.write(finished_run).read_text()).words)
    for words in ("class_means", "32.1", "Accuracy on frozen features by epochs."):
        assert words in text
    assert (finished_run / "figures" / "by_epoch.png").exists()


def test_another_label_field_has_a_section_without_being_a_transfer(finished_run):
    few = {"accuracy": 0.123, "std": 0.0, "draws": [0.123]}
    write_evaluation(finished_run, "label_parity_knn", "knn", {"simclr": few}, label="parity")
    text = " ".join(Reader(page.write(finished_run).read_text()).words)
    own, heading, other = text.partition(", label parity")
    assert heading
    assert "Evaluation on" in own
    assert "12.3 " in other
    assert "saw none of these images" not in other


def test_usage_names_the_folder_of_the_weights(finished_run):
    assert "No checkpoint in the workdir" in page.write(finished_run).read_text()
    (finished_run / "checkpoints").mkdir()
    text = " ".join(Reader(page.write(finished_run).read_text()).words)
    assert "ssl_jax.load_backbone('run')" in text
    assert "ssl-jax export --workdir=run --format=torch" in text


def test_imported_weights_are_not_described_as_trained_by_the_run(finished_run):
    change_config(finished_run, pretrained={"path": "/w/tuned", "origin": "tuned, step 9"})
    (finished_run / "metrics.jsonl").unlink()
    text = " ".join(Reader(page.write(finished_run).read_text()).words)
    assert "tuned, step 9, evaluated on cifar10" in text
    assert "load_backbone('tuned')" in text
    assert "used no label" not in text


def command(workdir) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-m", "ssl_jax.report", f"--workdir={workdir}"]
    return subprocess.run(
        arguments, capture_output=True, text=True, cwd=ROOT, env=os.environ, check=False
    )


def test_command_prints_the_path_of_the_page(finished_run):
    done = command(finished_run)
    assert (done.returncode, done.stdout) == (0, f"{finished_run}/report.html\n"), done.stderr
    names = sorted(p.name for p in (finished_run / "figures").iterdir())
    assert names == [f"{n}.png" for n in PICTURES]


def test_command_reports_a_missing_workdir_in_one_line(tmp_path):
    done = command(tmp_path / "nowhere")
    assert done.returncode == 66
    assert len(done.stderr.splitlines()) == 1
    assert "no such folder" in done.stderr


def test_report_imports_neither_jax_nor_tensorflow():
    code = "import sys, ssl_jax.report.page; print({'jax', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout == "set()\n", done.stderr
