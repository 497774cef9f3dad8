"""Optimizers, learning-rate schedules, and masks over parameters.

Importing this package imports no JAX, so that a command checks a name within milliseconds.
"""

NAMES = ("adamw", "lars", "plain", "sgd")
LR_RULES = ("constant", "linear", "sqrt")
SCHEDULES = ("constant", "cosine", "linear", "step")

Turns = tuple[tuple[int, int], ...]
"""Ranges of steps (first, end) in rising order, in which an optimizer makes its updates."""


def turns_from(step: int) -> Turns:
    """Returns the turns of an optimizer that starts at a step and goes on to the end of the run."""
    return ((step, 2**31 - 1),)
