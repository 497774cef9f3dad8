"""Accuracies of evaluations in per cent, with their spread, as numbers and as text."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from ssl_jax.jobs.json_files import is_number


class Accuracy(NamedTuple):
    """Accuracy as a report shows it.

    Attributes:
      percent: the accuracy in per cent.
      spread: number after ±, in percentage points; None if there is none.
      spread_kind: "ci95" (half-width of the 95 % interval), "std" (standard deviation) or "".
    """

    percent: float
    spread: float | None
    spread_kind: str


def accuracy_of(result: Any) -> Accuracy | None:
    """Returns the accuracy of a result; None if the result has no accuracy.

    The spread is the 95 % interval. Results of several draws without an interval show the standard
    deviation.

    Args:
      result: entry of an evaluation's "results" for one feature set, as read from JSON.
    """
    if not isinstance(result, dict) or not is_number(result.get("accuracy")):
        return None
    percent = 100 * float(result["accuracy"])
    draws = result.get("draws")
    several = isinstance(draws, list) and len(draws) > 1
    for key in ("ci95", "std") if several else ("ci95",):
        if is_number(result.get(key)):
            return Accuracy(percent, 100 * float(result[key]), key)
    return Accuracy(percent, None, "")


def format_accuracy(accuracy: Accuracy | None) -> str:
    """Formats an accuracy, for example as "95.6 ± 1.7"; "–" for None."""
    if accuracy is None:
        return "–"
    unit = " (sd)" if accuracy.spread_kind == "std" else ""
    spread = "" if accuracy.spread is None else f" ± {accuracy.spread:.1f}{unit}"
    return f"{accuracy.percent:.1f}{spread}"


def spread_note(accuracies: Iterable[Accuracy | None]) -> str:
    """Returns a sentence that explains the ± of these accuracies; "" if none has a spread."""
    kinds = {accuracy.spread_kind for accuracy in accuracies if accuracy}
    if "ci95" in kinds:
        return (
            "±: half-width of the 95 % t-interval of the mean over draws of labels or seeds. It "
            "does not cover other test images or another training run."
            + (" (sd): standard deviation over draws." if "std" in kinds else "")
        )
    return "±: standard deviation over draws of labels." if "std" in kinds else ""
