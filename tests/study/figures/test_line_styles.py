"""Figures of studies with more lines than the palette has, and with a rule of another version."""

import pytest

from ssl_jax.study import results, seed_means
from ssl_jax.study.figures import accuracy, axes, noise_scale

MANY = ",".join(str(n) for n in range(1, 14))


@pytest.mark.parametrize("count", [1, 12, 13, 30])
def test_every_line_has_its_own_colour(count):
    assert len(set(axes.line_colors(count))) == count


@pytest.mark.parametrize("grid", [f"batch=64,128;epochs={MANY}", f"batch={MANY};epochs=1,2"])
def test_thirteen_lengths_or_batches_are_drawn(study_of, grid):
    read = results.read_results(study_of(grid, noise_scale=lambda cell: 200.0))
    (panel,) = seed_means.panels(read)
    assert accuracy.against_batch(panel, {"knn": "20-NN"})
    assert accuracy.against_length(panel, "knn", "20-NN")
    assert noise_scale.draw(read)


def test_unknown_rule_is_drawn(study_of):
    (panel,) = seed_means.panels(results.read_results(study_of("batch=64,128;lr_rule=linear,sqrt")))
    points = tuple(p._replace(rule="cubic") if p.rule == "sqrt" else p for p in panel.points)
    assert accuracy.against_batch(panel._replace(points=points), {"knn": "20-NN"})
