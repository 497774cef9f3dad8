"""Axes of a study's figures."""

import itertools

import pytest
from matplotlib.figure import Figure

from ssl_jax.study.figures.axes import plot_grid, set_octaves


@pytest.mark.parametrize(
    "values",
    [
        [32 * 2**i for i in range(11)],
        [4000, 4096, 4100, 65536],
        [1_000_000 * 1.05**i for i in range(9)],
        [7],
    ],
)
def test_labels_of_the_batch_axis_do_not_touch(values):
    figure: Figure
    figure, plots = plot_grid(3)
    for ax in plots:
        set_octaves(ax, values, "Batch  (images)")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in plots[0].get_xticklabels() if text.get_text()]
    assert boxes
    assert len(plots[0].get_xticks()) == len(values)
    boxes.sort(key=lambda box: box.x0)
    for left, right in itertools.pairwise(boxes):
        assert right.x0 - left.x1 > 3, values  # pixels
