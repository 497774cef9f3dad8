"""The page and its figures: each where the grid has the data for it, nothing else."""

import re

import pytest

from ssl_jax.study import page


def figures(study):
    return {path.stem for path in (study.path / "figures").glob("*.png")}


def written(study):
    told = page.write(study)
    return told, (study.path / "study.html").read_text()


@pytest.fixture
def whole(study_of):
    return study_of(
        "batch=64,256;epochs=4,8;lr_rule=linear,sqrt;seed=0,1",
        accuracy=lambda cell: 0.9 + cell.setting["seed"] / 100,
        noise_scale=lambda cell: 200.0,
    )


def test_a_whole_grid_has_its_tables_beside_the_published_one_and_all_figures(whole):
    told, html = written(whole)
    assert figures(whole) == {"batch", "epochs", "lr_rule", "noise_scale"}
    assert "| 64 | 90.5 ± 6.4 / 90.5 ± 6.4 |" in told  # t of 1 degree, 12.706 · 0.707 / √2
    assert "table B.1" in html
    assert "never their numbers" in html
    assert "<span>57.5</span><span>62.8</span>" in html
    assert "0.3 linear and 0.075 sqrt agree at 4096" in html
    assert html.count("<img") == 4
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html), "the page needs nothing else"


def test_what_the_grid_does_not_vary_has_no_figure(study_of):
    study = study_of("batch=64")
    _, html = written(study)
    assert figures(study) == set()
    assert page.ONE_SEED in html
    assert "Scaling" not in html
    assert "noise scale" not in html


def test_devices_have_the_figure_of_scaling_with_the_remark_on_cpus(study_of):
    study = study_of("devices=1,2;steps=5")
    _, html = written(study)
    assert figures(study) == {"scaling"}
    assert "more devices than cores cannot be faster" in html


def test_diverged_and_failed_cells_are_shown_with_what_they_said(study_of):
    study = study_of("batch=64,128;seed=0,1", skip=["batch=64-seed=0", "batch=128-seed=1"])
    study.write_record(study.cells[0], {"exit": 80, "seconds": 1.0, "lines": ["loss nan <b>"]})
    study.write_record(study.cells[3], {"exit": 65, "seconds": 1.0, "lines": ["no file"]})
    _, html = written(study)
    assert "1 of 2 diverged" in html
    assert "1 of 2 failed" in html
    assert "batch=64-seed=0: diverged, exit 80" in html
    assert "loss nan &lt;b&gt;" in html
    assert "no file" in html


def test_before_anything_has_run_the_page_says_so(study_of):
    study = study_of("batch=64,128", skip=["batch=64", "batch=128"])
    _, html = written(study)
    assert "No cell is evaluated yet" in html
    assert "2 missing" in html
