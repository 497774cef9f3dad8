"""Infers the arguments of a ResNet from the shapes of its arrays."""

from collections.abc import Sequence
from typing import Any

from ssl_jax import models
from ssl_jax.errors import BAD_DATA, Fault

USUAL_RATIO = 0.0625  # sk_ratio of SimCLR v2 (arXiv 2006.10029)
IMAGE = (32, 32)  # any size works: shapes of parameters do not depend on it


def infer_model(
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
    """Returns the arguments of `ssl_jax.models.get`.

    Args:
      layout: name of the layout, for error messages.
      block: "BasicBlock" or "Bottleneck".
      stages: number of blocks in each stage.
      channels: output channels of the stem.
      stem: "imagenet" or "cifar".
      reduced: channels of the selective kernels' gates, one number per stage; empty if the network
        has no selective kernels.
      padding, mean, std: fields of `models.resnet.ResNet`; returned as they are.

    Raises:
      Fault: if no encoder has these blocks.
    """
    names = [name for name, kind in models.RESNETS.items() if kind == (block, tuple(stages))]
    if not names:
        known = "; ".join(f"{name} {kind[0]} {kind[1]}" for name, kind in models.RESNETS.items())
        message = f"{layout}: no ResNet has {block}s in stages of {tuple(stages)}"
        raise Fault(f"{message}. Supported are: {known}", BAD_DATA)
    return {
        "name": names[0],
        "width": channels / 64,
        "stem": stem,
        "sk_ratio": _sk_ratio(channels, reduced),
        "padding": padding,
        "mean": mean,
        "std": std,
    }


def _sk_ratio(channels: int, reduced: Sequence[int]) -> float:
    """Returns the ratio that gives every stage its number of gate channels.

    If no ratio does, the comparison of shapes in `trees.assemble` reports the difference.
    """
    if not reduced:
        return 0.0
    last = channels * 2 ** (len(reduced) - 1)
    # If all gates have the minimum number of channels, many ratios fit: prefer the usual one.
    for ratio in (USUAL_RATIO, reduced[-1] / last, (reduced[-1] + 0.5) / last):
        if all(_gate_channels(channels * 2**i, ratio) == n for i, n in enumerate(reduced)):
            return ratio
    return USUAL_RATIO


def _gate_channels(channels: int, ratio: float) -> int:
    from ssl_jax.models.resnet import SK_MIN_CHANNELS

    return max(int(channels * ratio), SK_MIN_CHANNELS)
