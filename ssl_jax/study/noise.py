"""The gradient noise scale against the batch and over the training, as one PNG file."""

import statistics
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes

from ssl_jax.report.files import series
from ssl_jax.report.overlay import COLORS
from ssl_jax.report.style import MUTED, STYLE, png
from ssl_jax.study import axes
from ssl_jax.study.gather import Row
from ssl_jax.study.grid import spelled

KEY = "noise_scale"


def draw(rows: Sequence[Row]) -> bytes:
    """At the end of every run, and over the longest runs; b"" where none logged it."""
    known = [row for row in rows if (row.last(KEY) or 0) > 0 and not row.cell.same_as]
    if not known:
        return b""
    batches = sorted({row.batch for row in known})
    with matplotlib.rc_context(STYLE):
        figure, (against, over) = axes.grid(2)
        for i, length in enumerate(sorted({row.length for row in known})):
            _line(against, [row for row in known if row.length == length], COLORS[i])
        against.plot(batches, batches, ":", color=MUTED, label="noise scale = batch")
        axes.octaves(against, batches, "Batch  (images)")
        against.set_title("Noise scale of the last step  (images)")
        longest = max(row.length for row in known)
        for row in (row for row in known if row.length == longest):
            assert row.run is not None  # whose metric is known
            steps, values = series(row.run, KEY)
            color = COLORS[batches.index(row.batch)]
            over.plot(steps * row.batch, values, "-", color=color, lw=1.4)
        for batch in batches:
            over.plot([], [], color=COLORS[batches.index(batch)], label=f"batch {batch:,}")
        over.set_xlabel("Images seen")
        over.set_title(f"Over {spelled(longest[1])} {longest[0]}  (images)")
        for ax in (against, over):
            ax.set_yscale("log", base=2)
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
            ax.legend(fontsize=9)
        over.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        return png(figure)


def _line(ax: Axes, rows: Sequence[Row], color: str) -> None:
    """Every run a dot, and the line through their medians."""
    at: dict[int, list[float]] = {}
    for row in sorted(rows, key=lambda row: row.batch):
        at.setdefault(row.batch, []).append(row.last(KEY) or 0.0)
    for batch, values in at.items():
        ax.plot([batch] * len(values), values, ".", ms=7, color=color, alpha=0.6)
    unit, length = rows[0].length
    medians = [statistics.median(values) for values in at.values()]
    ax.plot(list(at), medians, "o-", color=color, label=f"{spelled(length)} {unit}, median")
