"""Which ResNet a file holds, told from the shapes of its arrays."""

from collections.abc import Sequence
from typing import Any

from ssl_jax import models
from ssl_jax.errors import BAD_DATA, Fault

USUAL_RATIO = 0.0625  # of selective kernels: SimCLR v2 (arXiv 2006.10029)
IMAGE = (32, 32)  # shapes of parameters do not depend on it


def model(
    layout: str,
    *,
    block: str,
    stages: Sequence[int],
    channels: int,
    stem: str,
    reduced: Sequence[int] = (),
    padding: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> dict[str, Any]:
    """Arguments of `ssl_jax.models.get`.

    Args:
      layout: its name, for people.
      block: "BasicBlock" or "Bottleneck".
      stages: blocks of each.
      channels: of the stem.
      reduced: channels of the selective kernels' gates, one for each stage; none without them.

    Raises:
      Fault: no encoder of ours has such blocks.
    """
    names = [name for name, kind in models.RESNETS.items() if kind == (block, tuple(stages))]
    if not names:
        known = "; ".join(f"{name} {kind[0]} {kind[1]}" for name, kind in models.RESNETS.items())
        message = f"{layout}: {block}s in stages of {tuple(stages)}; there are: {known}"
        raise Fault(message, BAD_DATA)
    return {
        "name": names[0],
        "width": channels / 64,
        "stem": stem,
        "sk_ratio": _ratio(channels, reduced),
        "padding": padding,
        "mean": mean,
        "std": std,
    }


def _ratio(channels: int, reduced: Sequence[int]) -> float:
    """The reduction that gives every stage its number; what is wrong is told later, by shapes."""
    if not reduced:
        return 0.0
    last = channels * 2 ** (len(reduced) - 1)
    # Where all are at the least number of channels many ratios would do.
    for ratio in (USUAL_RATIO, reduced[-1] / last, (reduced[-1] + 0.5) / last):
        if all(_reduced(channels * 2**i, ratio) == found for i, found in enumerate(reduced)):
            return ratio
    return USUAL_RATIO


def _reduced(channels: int, ratio: float) -> int:
    from ssl_jax.models.resnet import SK_MIN_CHANNELS

    return max(int(channels * ratio), SK_MIN_CHANNELS)
