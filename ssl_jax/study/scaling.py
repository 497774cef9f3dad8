"""Images a second against devices, as one PNG file."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes

from ssl_jax.report.groups import Mean, mean
from ssl_jax.report.overlay import COLORS
from ssl_jax.report.style import MUTED, STYLE, png
from ssl_jax.study import axes
from ssl_jax.study.gather import Row
from ssl_jax.study.grid import DEVICES, spelled

WEAK, STRONG = "weak", "strong"


class Series(NamedTuple):
    """One training on several numbers of devices."""

    kind: str  # weak: a fixed batch per device; strong: a fixed batch
    batch: int  # per device, or global
    others: str  # what else the grid varies
    rates: dict[int, Mean]  # {devices: images a second, over seeds and lengths}

    def efficiency(self, devices: int) -> float:
        """Speed-up over the fewest devices, by the one that is ideal."""
        first = min(self.rates)
        return self.rates[devices].value / self.rates[first].value * first / devices


def series(rows: Sequence[Row]) -> list[Series]:
    """All that the rows have of two numbers of devices or more, weak first."""
    found: dict[tuple[str, int, str], dict[int, list[float]]] = {}
    for row in rows:
        if not row.devices or row.images_per_second is None or row.cell.same_as:
            continue
        kept = {k: spelled(v) for k, v in row.others.items() if k != DEVICES}
        others = ", ".join(f"{key} {value}" for key, value in kept.items())
        keys = [(STRONG, row.batch, others)]
        if row.batch % row.devices == 0:
            keys.append((WEAK, row.batch // row.devices, others))
        for key in keys:
            at = found.setdefault(key, {})
            at.setdefault(row.devices, []).append(row.images_per_second)
    made = [
        Series(*key, {n: m for n in sorted(at) if (m := mean(at[n]))})
        for key, at in found.items()
        if len(at) > 1
    ]
    return sorted(made, key=lambda one: (one.kind != WEAK, one.batch, one.others))


def draw(found: Sequence[Series]) -> bytes:
    """Weak and strong scaling side by side, below each its efficiency; b"" without any."""
    kinds = [kind for kind in (WEAK, STRONG) if any(one.kind == kind for one in found)]
    if not kinds:
        return b""
    with matplotlib.rc_context(STYLE):
        figure, plots = axes.grid(2 * len(kinds), columns=len(kinds))
        above, below = plots[: len(kinds)], plots[len(kinds) :]
        for rates, efficiency, kind in zip(above, below, kinds, strict=True):
            mine = [one for one in found if one.kind == kind]
            for i, one in enumerate(mine):
                _draw(rates, efficiency, one, COLORS[i % len(COLORS)])
            devices = sorted({n for one in mine for n in one.rates})
            for ax in (rates, efficiency):
                axes.octaves(ax, devices, "Devices")
                ax.set_ylim(bottom=0)
            per = "images / s per device" if kind == WEAK else "images / s"
            rates.set_title(f"{kind.capitalize()} scaling  ({per})")
            efficiency.set_title(f"Efficiency of {kind} scaling  (%)")
            efficiency.axhline(100, ls=":", color=MUTED)
            efficiency.set_ylim(top=max(efficiency.get_ylim()[1], 110))
            rates.legend(fontsize=9, handlelength=2.2)
        return png(figure)


def _draw(rates: Axes, efficiency: Axes, one: Series, color: str) -> None:
    """Measured with intervals, and dotted what the fewest devices promise."""
    first, weak = min(one.rates), one.kind == WEAK
    devices = list(one.rates)
    share = [n if weak else 1 for n in devices]
    values = [one.rates[n].value / s for n, s in zip(devices, share, strict=True)]
    halves = [(one.rates[n].half or 0) / s for n, s in zip(devices, share, strict=True)]
    name = f"{one.batch:,} images per device" if weak else f"{one.batch:,} images"
    name += f", {one.others}" if one.others else ""
    look = {"color": color, "ms": 5, "lw": 1.6, "elinewidth": 1.2, "capsize": 3}
    rates.errorbar(devices, values, yerr=halves, fmt="o-", label=name, **look)
    ideal = [values[0] * (1 if weak else n / first) for n in devices]
    rates.plot(devices, ideal, ":", color=color, lw=1.2)
    parts = [100 * one.efficiency(n) for n in devices]
    efficiency.plot(devices, parts, "o-", color=color, ms=5, lw=1.6)
