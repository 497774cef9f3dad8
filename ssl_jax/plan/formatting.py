"""Formats numbers with units for people."""


def size(number: float) -> str:
    """Formats bytes: "5.30 GiB", "12.0 MiB", "640 B"."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= factor:
            return f"{_three_digits(number / factor)} {unit}"
    return f"{number:.0f} B"


def seconds(number: float) -> str:
    """Formats short times: "1.24 s", "12.4 ms", "310 µs"."""
    if number == 0:
        return "0"
    for unit, factor in (("s", 1.0), ("ms", 1e-3)):
        if number >= factor:
            return f"{_three_digits(number / factor)} {unit}"
    return f"{_three_digits(number / 1e-6)} µs"


def duration(number: float) -> str:
    """Formats long times in seconds: "45 s", "12 min", "1 h 05 min", "3 d 04 h"."""
    if number < 60:
        return f"{number:.0f} s"
    minutes = round(number / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = round(number / 3600)
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24:02d} h"


def count(number: float) -> str:
    """Formats a count: "1,281,167"."""
    return f"{number:,.0f}"


def flops(number: float) -> str:
    """Formats floating-point operations: "1.24 TFLOP"."""
    for unit, factor in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6)):
        if number >= factor:
            return f"{_three_digits(number / factor)} {unit}"
    return f"{number:.0f} FLOP"


def percent(share: float) -> str:
    """Formats a fraction: "41 %"; below 9.5 % with two significant digits."""
    if 0 < share < 5e-5:
        return "< 0.01 %"
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.2g} %"


def hours(number: float) -> str:
    """Formats chip-hours: "1,240", "12.4", "0.031"."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _three_digits(number: float) -> str:
    """Formats a number with three significant digits."""
    return f"{number:,.0f}" if number >= 99.95 else f"{number:.3g}"
