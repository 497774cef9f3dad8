"""Throughput (images per second) against the number of devices: its series and their figure."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes

from ssl_jax.report.figures.style import MUTED, STYLE, png
from ssl_jax.report.seed_groups import Mean, mean
from ssl_jax.study.figures.axes import line_colors, plot_grid, set_octaves
from ssl_jax.study.grid import DEVICES, format_value
from ssl_jax.study.results import Result

WEAK, STRONG = "weak", "strong"


class Series(NamedTuple):
    """Throughput of the same training on several numbers of devices.

    Attributes:
      kind: "weak" (fixed batch per device) or "strong" (fixed global batch).
      batch: images per device if weak, per global batch if strong.
      others: values of the other keys of the grid, as text.
      rates: {number of devices: images per second, mean over seeds and lengths}.
    """

    kind: str
    batch: int
    others: str
    rates: dict[int, Mean]

    def efficiency(self, devices: int) -> float:
        """Returns speed-up over the fewest devices, divided by the ideal speed-up."""
        fewest = min(self.rates)
        return self.rates[devices].value / self.rates[fewest].value * fewest / devices


def find_series(results: Sequence[Result]) -> list[Series]:
    """Returns all series with two or more numbers of devices; weak scaling comes first."""
    rates: dict[tuple[str, int, str], dict[int, list[float]]] = {}
    for result in results:
        if not result.devices or result.images_per_second is None or result.cell.same_as:
            continue
        values = {k: format_value(v) for k, v in result.others.items() if k != DEVICES}
        others = ", ".join(f"{key} {value}" for key, value in values.items())
        keys = [(STRONG, result.batch, others)]
        if result.batch % result.devices == 0:
            keys.append((WEAK, result.batch // result.devices, others))
        for key in keys:
            by_devices = rates.setdefault(key, {})
            by_devices.setdefault(result.devices, []).append(result.images_per_second)
    series = [
        Series(*key, {n: m for n in sorted(by_devices) if (m := mean(by_devices[n]))})
        for key, by_devices in rates.items()
        if len(by_devices) > 1
    ]
    return sorted(series, key=lambda s: (s.kind != WEAK, s.batch, s.others))


def draw(series: Sequence[Series]) -> bytes:
    """Draws weak and strong scaling side by side, with their efficiency below.

    Returns:
      PNG; b"" without series.
    """
    kinds = [kind for kind in (WEAK, STRONG) if any(s.kind == kind for s in series)]
    if not kinds:
        return b""
    with matplotlib.rc_context(STYLE):
        figure, plots = plot_grid(2 * len(kinds), columns=len(kinds))
        top, bottom = plots[: len(kinds)], plots[len(kinds) :]
        for rates, efficiency, kind in zip(top, bottom, kinds, strict=True):
            of_kind = [s for s in series if s.kind == kind]
            for one, color in zip(of_kind, line_colors(len(of_kind)), strict=True):
                _draw_series(rates, efficiency, one, color)
            devices = sorted({n for one in of_kind for n in one.rates})
            for ax in (rates, efficiency):
                set_octaves(ax, devices, "Devices")
                ax.set_ylim(bottom=0)
            unit = "images / s per device" if kind == WEAK else "images / s"
            rates.set_title(f"{kind.capitalize()} scaling  ({unit})")
            efficiency.set_title(f"Efficiency of {kind} scaling  (%)")
            efficiency.axhline(100, ls=":", color=MUTED)
            efficiency.set_ylim(top=max(efficiency.get_ylim()[1], 110))
            rates.legend(fontsize=9, handlelength=2.2)
        return png(figure)


def _draw_series(rates: Axes, efficiency: Axes, series: Series, color: str) -> None:
    """Draws measured rates with intervals, and as a dotted line the ideal from fewest devices."""
    fewest, weak = min(series.rates), series.kind == WEAK
    devices = list(series.rates)
    divisors = [n if weak else 1 for n in devices]
    values = [series.rates[n].value / d for n, d in zip(devices, divisors, strict=True)]
    halves = [(series.rates[n].half or 0) / d for n, d in zip(devices, divisors, strict=True)]
    name = f"{series.batch:,} images per device" if weak else f"{series.batch:,} images"
    name += f", {series.others}" if series.others else ""
    look = {"color": color, "ms": 5, "lw": 1.6, "elinewidth": 1.2, "capsize": 3}
    rates.errorbar(devices, values, yerr=halves, fmt="o-", label=name, **look)
    ideal = [values[0] * (1 if weak else n / fewest) for n in devices]
    rates.plot(devices, ideal, ":", color=color, lw=1.2)
    percent = [100 * series.efficiency(n) for n in devices]
    efficiency.plot(devices, percent, "o-", color=color, ms=5, lw=1.6)
