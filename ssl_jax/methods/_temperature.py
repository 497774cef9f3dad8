"""Schedules of the temperature of a softmax loss."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.losses.softmax import lowest_temperature

Loss = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
SCHEDULES = ("constant", "cosine", "log")


class Temperature(NamedTuple):
    """Temperature of every step of a run."""

    at: Callable[[jax.Array], float | jax.Array]
    """step int [] -> temperature: the Python number itself if it is constant, else float32 []."""

    varies: bool
    """False if the temperature is constant."""

    def apply(self, loss: Loss, step: jax.Array, *arrays: jax.Array | None) -> tuple:
        """Returns loss(*arrays, temperature=T) at a step, with T as a metric if it varies.

        Args:
          loss: returns (scalar, metrics).
          step: number of steps before this one.
          arrays: arguments of the loss.
        """
        now = self.at(step)
        value, metrics = loss(*arrays, temperature=now)
        return value, metrics | ({"temperature": jnp.asarray(now)} if self.varies else {})


def make(
    start: float,
    total_steps: int,
    *,
    schedule: str,
    end: float,
    periods: float,
    concentration: float = 0,
) -> Temperature:
    """Returns the temperature T of each step s = 0, 1, ... of a run of S steps.

    "constant": T = start.
    "cosine": T = end + (start - end) (1 + cos(2 pi periods s / S)) / 2. Half a period leads from
      start at step 0 to end at step S, which is one step after the last; more periods swing between
      the two.
    "log": T = start / (1 + ln(1 + s)), with the natural logarithm: start at step 0, and an eighth
      of it after 1,096 steps.

    Args:
      start: temperature at step 0.
      total_steps: length of the run.
      schedule: "constant", "cosine" or "log".
      end: temperature of "cosine" after half a period.
      periods: periods of "cosine" in the run.
      concentration: as in `lowest_temperature`.

    Raises:
      ValueError: if the schedule is unknown, the periods are not a finite number above 0, or the
        temperature of a schedule that varies falls below `lowest_temperature` in float32. A
        constant temperature is checked by the loss.

    Source of "cosine": Kukleva et al. (arXiv 2303.13664) and their code,
    Annusha/temperature_schedules train_simCLR.py and README.md. On CIFAR-10 it swings between 1.0
    and 0.1 with a period of 400 epochs in 2000 epochs: 5 periods. That code changes the temperature
    once an epoch; here every step does.
    """
    if schedule not in SCHEDULES:
        raise ValueError(
            f"unknown temperature_schedule {schedule!r}; choose one of: {', '.join(SCHEDULES)}"
        )
    if schedule == "constant":
        return Temperature(lambda step: start, varies=False)
    if not 0 < periods < math.inf:
        raise ValueError(f"temperature_periods must be a finite number above 0, got {periods}")
    last = start / (1 + math.log(total_steps))
    smallest, lowest = min(start, end if schedule == "cosine" else last), _lowest(concentration)
    if not (smallest >= lowest and start < math.inf and end < math.inf):
        raise ValueError(
            f"temperature_schedule {schedule!r} takes the temperature to {smallest:.4g}, but the "
            f"loss is exact only from {lowest:g} on: raise method.temperature"
            + ("_end" if schedule == "cosine" and end < start else "")
            + ("" if schedule == "cosine" else " or shorten the run")
        )

    def cosine(step: jax.Array) -> jax.Array:
        progress = jnp.asarray(step, jnp.float32) / total_steps
        return end + (start - end) * (1 + jnp.cos(2 * jnp.pi * periods * progress)) / 2

    def log(step: jax.Array) -> jax.Array:
        return start / (1 + jnp.log1p(jnp.asarray(step, jnp.float32)))

    return Temperature(cosine if schedule == "cosine" else log, varies=True)


def _lowest(concentration: float) -> float:
    """Lowest temperature in float32, rounded up so that the number in a message is valid."""
    return math.ceil(lowest_temperature(jnp.float32, concentration) * 1e4) / 1e4
