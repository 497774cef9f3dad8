import math

import numpy as np
import pytest
from test_figures import size

from ssl_jax.report import curves, files


@pytest.fixture
def run(finished_run) -> files.Run:
    return files.read(finished_run)


def test_curves(run, tmp_path):
    assert curves.draw(run, curves.CURVES, tmp_path / "new" / "curves.png")
    assert size(tmp_path / "new" / "curves.png") == (1770, 810)  # 5 panels in rows of 3


def test_curves_of_one_step_and_of_none(run, tmp_path):
    one = run._replace(metrics=[{"step": 5, "loss": 2.0}])
    assert curves.draw(one, curves.CURVES, tmp_path / "one.png")
    assert size(tmp_path / "one.png") == (780, 405)
    assert not curves.draw(one, curves.HEALTH, tmp_path / "none.png")
    assert not curves.draw(run._replace(metrics=[]), curves.CURVES, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_health_shows_what_was_logged(run, tmp_path):
    assert curves.draw(run, curves.HEALTH, tmp_path / "health.png")
    assert size(tmp_path / "health.png") == (1770, 405)  # 4 panels, no target network
    momentum = run._replace(metrics=[row | {"target_distance": 0.1} for row in run.metrics])
    titles = [panel.title for panel in curves.shown(momentum, curves.HEALTH)]
    assert titles[3:] == ["Uniformity", "Target distance"]


def test_values_below_zero_hang_from_it(run, tmp_path):
    axes = panels(run, curves.HEALTH)["Uniformity"]
    low, high = axes.get_ylim()
    assert low == pytest.approx(1.12 * -2.5)  # of the projections, the lower of the two
    assert 0 < high < 0.2
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["features", "projections"]
    flat = [{"step": i, "feature_uniformity": 0.0} for i in range(5)]
    axes = panels(run._replace(metrics=flat), curves.HEALTH)["Uniformity"]
    assert axes.get_legend() is None


def panels(run, which):
    """The axes of every panel, by title without unit."""
    from matplotlib.figure import Figure

    found = {}
    for panel in curves.shown(run, which):
        found[panel.title] = Figure().add_subplot()
        curves._panel(found[panel.title], run, panel)
    return found


def test_chance_is_as_logged_and_that_of_the_loss_by_method(run):
    assert curves.chance(run, "loss") == pytest.approx(math.log(63))
    assert curves.chance(run, "contrastive_accuracy") == pytest.approx(1 / 63)
    assert curves.chance(run, "lr") is None
    scaled = run.config | {"method": {"name": "moco_v3"}}  # its loss is twice temperature's
    assert curves.chance(run._replace(config=scaled), "loss") is None
    assert curves.chance(run._replace(config=scaled), "contrastive_accuracy") is not None
    other = [{"step": 1, "loss": 2.0}]
    assert curves.chance(run._replace(metrics=other), "loss") is None


def test_running_mean_by_hand():
    np.testing.assert_allclose(curves.smooth(np.array([1.0, 2, 6, 3]), 1), [1.5, 3, 11 / 3, 4.5])
