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

from ssl_jax.evals import files, suite
from ssl_jax.report import page

ROOT = pathlib.Path(__file__).resolve().parents[2]
VOID = {"meta", "img", "br", "link"}


class Reader(html.parser.HTMLParser):
    """Collects text and attributes, and checks that tags close in order."""

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


def test_page_holds_numbers_pictures_and_how_to_reproduce(finished_run):
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
    assert "Effective rank: over how many directions" in text
    assert "Target distance" not in text
    assert "--note='<b>&'" in text  # shown as written, not as HTML
    images = [attrs["src"] for tag, attrs in read.tags if tag == "img"]
    assert len(images) == 5
    for image in images:
        base64.b64decode(image.removeprefix("data:image/png;base64,"), validate=True)


def test_generated_images_are_shown_where_there_are_any(finished_run):
    assert "Generated images" not in page.write(finished_run).read_text()
    (finished_run / "figures" / "samples.png").write_bytes(b"any bytes")
    text = page.write(finished_run).read_text()
    assert "<h2>Generated images</h2>" in text
    assert base64.b64encode(b"any bytes").decode() in text


def test_a_fine_tuned_run_does_not_claim_frozen_features(finished_run):
    config = json.loads((finished_run / "config.json").read_text())
    (finished_run / "config.json").write_text(json.dumps(config | {"finetune": {}}))
    for file in (finished_run / "eval").glob("*.json"):
        file.unlink()
    found = suite.classifier(np.r_[0, 1, 1], np.r_[0, 1, 0], name="simclr", step=9, protocol={})
    files.write(finished_run, {"finetune": found})
    text = " ".join(Reader(page.write(finished_run).read_text()).words)
    assert "fine-tuned on some" in text
    assert "frozen" not in text
    assert "SimCLR, fine-tuned, on" in text
    assert "Own classifier" in text
    assert "66.7" in text


def test_page_needs_nothing_else(finished_run):
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
        ("eval", "Not evaluated yet"),
        ("eval/sample.npz", "No sample of test features"),
        ("metrics.jsonl", "No step has been logged"),
        ("metadata.json", "No metadata.json"),
        ("config.json", "No config.json"),
        ("figures", "No picture of the views"),
    ],
)
def test_what_is_missing_is_said(finished_run, missing, sentence):
    (finished_run / "eval" / "sample.npz").unlink()  # its map and neighbours take seconds to draw
    path = finished_run / missing
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    assert sentence in " ".join(Reader(page.write(finished_run).read_text()).words)


def test_everything_but_the_config_may_be_missing(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"method": {"name": "byol"}}))
    assert "<h1>BYOL</h1>" in page.write(tmp_path).read_text()


def command(workdir) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-m", "ssl_jax.report", f"--workdir={workdir}"]
    return subprocess.run(
        arguments, capture_output=True, text=True, cwd=ROOT, env=os.environ, check=False
    )


def test_command_prints_the_path(finished_run):
    done = command(finished_run)
    assert (done.returncode, done.stdout) == (0, f"{finished_run}/report.html\n"), done.stderr
    names = sorted(p.name for p in (finished_run / "figures").iterdir())
    assert names == ["curves.png", "health.png", "map.png", "neighbours.png"]


def test_command_on_a_missing_workdir_is_one_line(tmp_path):
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
