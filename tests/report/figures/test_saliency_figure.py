import numpy as np
import pytest
from png_files import png_size
from written_run import HOSTILE

from ssl_jax.report import figure_sections, run_files
from ssl_jax.report.figures import saliency


@pytest.fixture
def run(finished_run) -> run_files.Run:
    return run_files.read_run(finished_run)


def draw(sample, classes, path):
    return saliency.draw(sample["image"], sample["saliency"], sample["label"], classes, path)


def test_draws_heat_over_the_images(run, tmp_path):
    assert draw(run.sample, run.classes, tmp_path / "a.png")
    width, height = png_size(tmp_path / "a.png")
    assert width > height > 400
    zero = run.sample | {"saliency": np.zeros((3, 4, 4), np.float16)}
    assert draw(zero, run.classes, tmp_path / "c.png")


def test_draws_nothing_without_saliency(run, tmp_path):
    empty = run.sample | {"saliency": np.zeros((0, 4, 4), np.float16)}
    assert not draw(empty, run.classes, tmp_path / "b.png")
    without = {name: x for name, x in run.sample.items() if name != "saliency"}
    assert not figure_sections.saliency_section(run._replace(sample=without))
    assert not figure_sections.saliency_section(run._replace(sample={}))


def test_draws_hostile_class_names_as_plain_text(run, tmp_path):
    sample = run.sample | {"label": np.arange(30) % 7}
    assert draw(sample, HOSTILE, tmp_path / "b.png")
