"""Page of a study: it shows exactly the figures for which the grid has data."""

import re

import pytest

from ssl_jax.study import page


def figure_names(study):
    return {path.stem for path in (study.path / "figures").glob("*.png")}


def write(study):
    text = page.write(study)
    return text, (study.path / "study.html").read_text()


@pytest.fixture
def full_grid(study_of):
    return study_of(
        "batch=64,256;epochs=4,8;lr_rule=linear,sqrt;seed=0,1",
        accuracy=lambda cell: 0.9 + cell.setting["seed"] / 100,
        noise_scale=lambda cell: 200.0,
    )


def test_a_full_grid_has_all_figures(full_grid):
    text, html = write(full_grid)
    assert figure_names(full_grid) == {"batch", "epochs", "lr_rule", "noise_scale"}
    # The interval by hand: t for 1 degree of freedom, 12.706 · 0.707 / √2.
    assert "| 64 | 90.5 ± 6.4 / 90.5 ± 6.4 |" in text
    assert "table B.1" not in html  # digits are not comparable with ImageNet
    assert "0.3 linear and 0.075 sqrt agree at 4096" in html
    assert html.count("<img") == 4
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html), "the page needs nothing else"


def test_a_study_of_resnet50_on_imagenet_is_beside_the_published_table(study_of):
    study = study_of("batch=64,256;lr_rule=linear,sqrt")
    for cell in study.cells:
        with cell.config.unlocked():
            cell.config.data.source, cell.config.model.name = "tfds:imagenet2012", "resnet50"
            cell.config.model.width = 1
    _, html = write(study)
    assert "table B.1" in html
    assert "<span>57.5</span><span>62.8</span>" in html


def test_keys_with_one_value_have_no_figure(study_of):
    study = study_of("batch=64")
    _, html = write(study)
    assert figure_names(study) == set()
    assert page.ONE_SEED in html
    assert "Scaling" not in html
    assert "noise scale" not in html


def test_several_devices_give_the_scaling_figure_with_a_remark_on_cpus(study_of):
    study = study_of("devices=1,2;steps=5")
    _, html = write(study)
    assert figure_names(study) == {"scaling"}
    assert "more devices than cores cannot be faster" in html


def test_diverged_and_failed_cells_are_shown_with_their_last_lines(study_of):
    study = study_of("batch=64,128;seed=0,1", skip=["batch=64-seed=0", "batch=128-seed=1"])
    study.write_record(study.cells[0], {"exit": 80, "seconds": 1.0, "lines": ["loss nan <b>"]})
    study.write_record(study.cells[3], {"exit": 65, "seconds": 1.0, "lines": ["no file"]})
    _, html = write(study)
    assert "1 of 2 diverged" in html
    assert "1 of 2 failed" in html
    assert "batch=64-seed=0: diverged, exit 80" in html
    assert "loss nan &lt;b&gt;" in html
    assert "no file" in html


def test_the_page_says_that_no_cell_has_run(study_of):
    study = study_of("batch=64,128", skip=["batch=64", "batch=128"])
    _, html = write(study)
    assert "No cell is evaluated yet" in html
    assert "2 missing" in html
