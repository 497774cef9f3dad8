import math

import numpy as np
import pytest
from png_files import png_size

from ssl_jax.report import run_files
from ssl_jax.report.figures import training_curves


@pytest.fixture
def run(finished_run) -> run_files.Run:
    return run_files.read_run(finished_run)


def test_draws_the_logged_training_metrics(run, tmp_path):
    assert training_curves.draw(run, training_curves.TRAINING, tmp_path / "new" / "curves.png")
    assert png_size(tmp_path / "new" / "curves.png") == (1770, 810)  # 5 panels in rows of 3


def test_draws_one_step_and_nothing_without_steps(run, tmp_path):
    one = run._replace(metrics=[{"step": 5, "loss": 2.0}])
    assert training_curves.draw(one, training_curves.TRAINING, tmp_path / "one.png")
    assert png_size(tmp_path / "one.png") == (780, 405)
    assert not training_curves.draw(one, training_curves.COLLAPSE, tmp_path / "none.png")
    assert not training_curves.draw(
        run._replace(metrics=[]), training_curves.TRAINING, tmp_path / "none.png"
    )
    assert not (tmp_path / "none.png").exists()


def test_draws_the_logged_collapse_signals(run, tmp_path):
    assert training_curves.draw(run, training_curves.COLLAPSE, tmp_path / "health.png")
    assert png_size(tmp_path / "health.png") == (1770, 405)  # 4 panels, no target network
    momentum = run._replace(metrics=[row | {"target_distance": 0.1} for row in run.metrics])
    titles = [
        panel.title for panel in training_curves.logged_panels(momentum, training_curves.COLLAPSE)
    ]
    assert titles[3:] == ["Uniformity", "Target distance"]


def test_negative_values_extend_the_axis_below_zero(run, tmp_path):
    axes = draw_panels(run, training_curves.COLLAPSE)["Uniformity"]
    low, high = axes.get_ylim()
    assert low == pytest.approx(1.12 * -2.5)  # the projections have the lower values
    assert 0 < high < 0.2
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["features", "projections"]
    flat = [{"step": i, "feature_uniformity": 0.0} for i in range(5)]
    axes = draw_panels(run._replace(metrics=flat), training_curves.COLLAPSE)["Uniformity"]
    assert axes.get_legend() is None


def test_a_negative_loss_is_drawn(run):
    """The decoupled loss of SimCLR falls below 0."""
    losses = [{"step": i, "loss": 2.0 - i} for i in range(5)]
    low, high = draw_panels(run._replace(metrics=losses), training_curves.TRAINING)[
        "Loss"
    ].get_ylim()
    assert low < -2 < 2 < high


def test_accuracies_of_zero_show_the_chance_level(run):
    """A level outside the axes left the layout no room, and Matplotlib warned."""
    zero = {"contrastive_accuracy": 0.0, "contrastive_chance": 1 / 31, "probe_accuracy": 0.0}
    zeros = run._replace(metrics=[{"step": i, **zero} for i in range(5)])
    axes = draw_panels(zeros, training_curves.TRAINING)
    assert axes["Contrastive accuracy"].get_ylim() == (0, pytest.approx(1.12 * 100 / 31))
    assert axes["Online probe accuracy"].get_ylim() == (0, 1)


def draw_panels(run, panels):
    """Draws each panel on its own axes; returns {title without unit: axes}."""
    from matplotlib.figure import Figure

    axes = {}
    for panel in training_curves.logged_panels(run, panels):
        axes[panel.title] = Figure().add_subplot()
        training_curves._draw_panel(axes[panel.title], run, panel)
    return axes


def chance_level(run, key):
    return training_curves.chance_levels(run).get(key)


def test_chance_level_is_logged_and_for_the_loss_depends_on_the_method(run):
    assert chance_level(run, "loss") == pytest.approx(math.log(63))
    assert chance_level(run, "contrastive_accuracy") == pytest.approx(1 / 63)
    assert chance_level(run, "lr") is None
    decoupled = run.config | {"method": {"name": "simclr", "loss": "decoupled"}}
    level = chance_level(run._replace(config=decoupled), "loss")
    assert level == pytest.approx(math.log(62))  # only the negatives are in the denominator
    scaled = run.config | {"method": {"name": "moco_v3"}}  # scales its loss
    assert chance_level(run._replace(config=scaled), "loss") is None
    assert chance_level(run._replace(config=scaled), "contrastive_accuracy") is not None
    doubled = run.config | {"method": {"name": "simclr", "scale": 2.0}}
    twice = chance_level(run._replace(config=doubled), "loss")
    assert twice == pytest.approx(2 * math.log(63))
    other = [{"step": 1, "loss": 2.0}]
    assert chance_level(run._replace(metrics=other), "loss") is None


def test_pretext_task_has_its_own_chance_levels(run):
    logged = {"pretext_accuracy": 0.5, "pretext_chance": 0.25, "pretext_error": 3.0}
    logged |= {"reconstruction_error": 0.04, "reconstruction_chance": 0.06}
    other = run._replace(metrics=[{"step": i, **logged} for i in range(5)])
    assert training_curves.chance_levels(other) == {
        "pretext_accuracy": 0.25,
        "reconstruction_error": 0.06,
    }
    axes = draw_panels(other, training_curves.TRAINING)
    assert [text.get_text() for text in axes["Accuracy of the pretext task"].texts] == ["chance 25"]
    assert [text.get_text() for text in axes["Reconstruction error"].texts] == ["chance 0.06"]
    assert not axes["Error of the pretext task"].texts


def test_running_mean_matches_hand_worked_values():
    np.testing.assert_allclose(
        training_curves.running_mean(np.array([1.0, 2, 6, 3]), 1), [1.5, 3, 11 / 3, 4.5]
    )
