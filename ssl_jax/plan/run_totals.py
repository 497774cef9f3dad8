"""What the whole run takes, from a step's seconds: hours, chip-hours, checkpoints."""

from typing import NamedTuple


class Totals(NamedTuple):
    """A run from first to last step; evaluation, compiling and starting are not counted.

    Attributes:
      steps: of the run; `epochs` what they come to.
      images: training images.
      seconds: of all steps.
      chip_hours: of all chips, working or not.
      checkpoint_bytes: of one checkpoint; `kept` stay on disk, `saves` are written in the run.
      save_every: seconds from one to the next.
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


def run(
    *,
    steps: int,
    images: int,
    batch_size: int,
    step_seconds: float,
    chips: int,
    checkpoint_bytes: float,
    checkpoint_every: int,
    keep: int,
) -> Totals:
    """The totals of `steps` steps of `step_seconds`."""
    seconds = steps * step_seconds
    saves = -(-steps // checkpoint_every)  # the last step is saved whatever its number
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
    )
