"""Learning rates of a study whose cells scale them by different rules.

A base rate means something under one rule only: SimCLR's 0.3 of the linear and 0.075 of the
square-root rule are both 4.8 at batch 4096 (arXiv 2002.05709, appendix B.1). So where a grid
varies the rule, the base rate of every rule is the one that agrees with the config's own rule and
base rate at the config's own batch size.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict


def converted(lr: float, rule: str, batch_size: int, new: str) -> float:
    """The base rate that under rule `new` gives the rate of (`lr`, `rule`) at `batch_size`."""
    from ssl_jax.optim import optimizers

    if new == rule:
        return lr
    return optimizers.learning_rate(lr, rule, batch_size) / optimizers.learning_rate(
        1.0, new, batch_size
    )


def fields(config: ConfigDict, setting: dict[str, Any]) -> dict[str, float]:
    """The base rates to set where `setting` has a rule: of the model, of groups with their own."""
    if "lr_rule" not in setting:
        return {}
    rule, batch_size, new = config.optim.lr_rule, config.train.batch_size, setting["lr_rule"]
    bases = {"optim.lr": setting.get("optim.lr", config.optim.lr)}
    bases |= {f"optim.groups.{key}.lr": lr for key, lr in _group_rates(config)}
    return {field: converted(lr, rule, batch_size, new) for field, lr in bases.items()}


def problems(config: ConfigDict) -> list[str]:
    """Groups whose rate could not be converted with the others'."""
    return [
        f"optim.groups.{key}.lr_rule: with lr_rule in the grid, give this group its own lr, too"
        for key, group in config.optim.groups.items()
        if "lr_rule" in group and "lr" not in group
    ]


def peaks(config: ConfigDict) -> dict[str, float]:
    """The highest rate of the model ("") and of every group that has its own, at its batch."""
    from ssl_jax.optim import optimizers

    found = {"": (config.optim.lr, config.optim.lr_rule)}
    for key, group in config.optim.groups.items():
        found[key] = (group.get("lr", config.optim.lr), group.get("lr_rule", config.optim.lr_rule))
    batch_size = config.train.batch_size
    return {k: optimizers.learning_rate(lr, rule, batch_size) for k, (lr, rule) in found.items()}


def _group_rates(config: ConfigDict) -> Iterator[tuple[str, float]]:
    """Groups that have their own rate under the model's rule."""
    for key, group in config.optim.groups.items():
        if "lr" in group and "lr_rule" not in group:
            yield key, group["lr"]
