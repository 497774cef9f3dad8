"""Learning rates of a study whose cells scale them by different rules.

A base rate has a meaning only under one rule: SimCLR's 0.3 by the linear rule and 0.075 by the
square-root rule both give 4.8 at batch 4096 (arXiv 2002.05709, appendix B.1). If a grid varies the
rule, each rule gets the base rate that agrees with the config's rule and base rate at the config's
batch size.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict


def convert_base_rate(lr: float, rule: str, batch_size: int, new_rule: str) -> float:
    """Returns the base rate that gives the same rate at `batch_size` under `new_rule`."""
    from ssl_jax.optim import optimizers

    if new_rule == rule:
        return lr
    rate = optimizers.learning_rate(lr, rule, batch_size)
    return rate / optimizers.learning_rate(1.0, new_rule, batch_size)


def base_rate_fields(config: ConfigDict, setting: dict[str, Any]) -> dict[str, float]:
    """Returns the base-rate fields to set for a setting that has a rule; {} if it has none.

    They are the model's base rate, and that of each parameter group with its own rate.
    """
    if "lr_rule" not in setting:
        return {}
    rule, batch_size, new_rule = config.optim.lr_rule, config.train.batch_size, setting["lr_rule"]
    base_rates = {"optim.lr": setting.get("optim.lr", config.optim.lr)}
    base_rates |= {f"optim.groups.{key}.lr": lr for key, lr in _group_rates(config)}
    return {
        field: convert_base_rate(lr, rule, batch_size, new_rule) for field, lr in base_rates.items()
    }


def problems(config: ConfigDict) -> list[str]:
    """Describes parameter groups whose rate cannot be converted with the others."""
    return [
        f"optim.groups.{key}.lr_rule: with lr_rule in the grid, also give this group its own lr"
        for key, group in config.optim.groups.items()
        if "lr_rule" in group and "lr" not in group
    ]


def peak_rates(config: ConfigDict) -> dict[str, float]:
    """Returns the peak rate of the model (key "") and of each parameter group (by its key)."""
    from ssl_jax.optim import optimizers

    base_rates = {"": (config.optim.lr, config.optim.lr_rule)}
    for key, group in config.optim.groups.items():
        rule = group.get("lr_rule", config.optim.lr_rule)
        base_rates[key] = (group.get("lr", config.optim.lr), rule)
    batch_size = config.train.batch_size
    return {
        k: optimizers.learning_rate(lr, rule, batch_size) for k, (lr, rule) in base_rates.items()
    }


def _group_rates(config: ConfigDict) -> Iterator[tuple[str, float]]:
    """Yields (key, base rate) of groups that have their own rate under the model's rule."""
    for key, group in config.optim.groups.items():
        if "lr" in group and "lr_rule" not in group:
            yield key, group["lr"]
