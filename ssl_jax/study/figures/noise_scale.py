"""Figure of the gradient noise scale against batch size and over the training."""

import statistics
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes

from ssl_jax.report.figures.style import MUTED, STYLE, png
from ssl_jax.report.run_files import metric_series
from ssl_jax.study.figures.axes import line_colors, plot_grid, set_octaves
from ssl_jax.study.grid import format_value
from ssl_jax.study.results import Result

KEY = "noise_scale"


def draw(results: Sequence[Result]) -> bytes:
    """Draws the noise scale of each run's last step, and its course over the longest runs.

    Returns:
      PNG; b"" if no run has logged the noise scale.
    """
    logged = [r for r in results if (r.last_value(KEY) or 0) > 0 and not r.cell.same_as]
    if not logged:
        return b""
    batches = sorted({result.batch for result in logged})
    with matplotlib.rc_context(STYLE):
        figure, (by_batch, over_images) = plot_grid(2)
        lengths = sorted({result.length for result in logged})
        for length, color in zip(lengths, line_colors(len(lengths)), strict=True):
            _draw_length(by_batch, [r for r in logged if r.length == length], color)
        by_batch.plot(batches, batches, ":", color=MUTED, label="noise scale = batch")
        set_octaves(by_batch, batches, "Batch  (images)")
        by_batch.set_title("Noise scale of the last step  (images)")
        colors = dict(zip(batches, line_colors(len(batches)), strict=True))
        longest = max(result.length for result in logged)
        for result in (result for result in logged if result.length == longest):
            assert result.run is not None  # it has logged the metric
            steps, values = metric_series(result.run, KEY)
            over_images.plot(steps * result.batch, values, "-", color=colors[result.batch], lw=1.4)
        for batch, color in colors.items():
            over_images.plot([], [], color=color, label=f"batch {batch:,}")
        over_images.set_xlabel("Images seen")
        over_images.set_title(f"Over {format_value(longest[1])} {longest[0]}  (images)")
        for ax in (by_batch, over_images):
            ax.set_yscale("log", base=2)
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
            ax.legend(fontsize=9)
        over_images.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        return png(figure)


def _draw_length(ax: Axes, results: Sequence[Result], color: str) -> None:
    """Draws each run of one length as a dot, and a line through the medians."""
    by_batch: dict[int, list[float]] = {}
    for result in sorted(results, key=lambda result: result.batch):
        by_batch.setdefault(result.batch, []).append(result.last_value(KEY) or 0.0)
    for batch, values in by_batch.items():
        ax.plot([batch] * len(values), values, ".", ms=7, color=color, alpha=0.6)
    unit, length = results[0].length
    medians = [statistics.median(values) for values in by_batch.values()]
    name = f"{format_value(length)} {unit}, median"
    ax.plot(list(by_batch), medians, "o-", color=color, label=name)
