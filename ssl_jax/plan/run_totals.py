"""Totals of a whole run: hours, chip-hours and checkpoints, from the seconds of a step."""

from typing import NamedTuple


class Totals(NamedTuple):
    """Totals from the first to the last step, without evaluation, compilation and start-up.

    Attributes:
      steps: steps of the run.
      epochs: epochs in these steps.
      images: number of training images.
      seconds: seconds of all steps.
      chip_hours: hours of all chips together.
      checkpoint_bytes: bytes of one checkpoint.
      kept: checkpoints that stay on disk.
      saves: checkpoints written during the run.
      save_every: seconds between two checkpoints.
      may_stop_early: the run may end before its last step, so that all totals are upper limits.
    """

    steps: int
    epochs: float
    images: int
    seconds: float
    chip_hours: float
    checkpoint_bytes: float
    kept: int
    saves: int
    save_every: float
    may_stop_early: bool = False


def run_totals(
    *,
    steps: int,
    images: int,
    batch_size: int,
    step_seconds: float,
    chips: int,
    checkpoint_bytes: float,
    checkpoint_every: int,
    keep: int,
    may_stop_early: bool = False,
) -> Totals:
    """Returns the totals of `steps` steps of `step_seconds` each.

    Args:
      checkpoint_every: steps between two checkpoints.
      keep: checkpoints that stay on disk.
      may_stop_early: the run may end before its last step.
    """
    seconds = steps * step_seconds
    saves = -(-steps // checkpoint_every)  # the last step is always saved
    return Totals(
        steps=steps,
        epochs=steps * batch_size / images,
        images=images,
        seconds=seconds,
        chip_hours=chips * seconds / 3600,
        checkpoint_bytes=checkpoint_bytes,
        kept=min(keep, saves),
        saves=saves,
        save_every=checkpoint_every * step_seconds,
        may_stop_early=may_stop_early,
    )
