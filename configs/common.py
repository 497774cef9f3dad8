"""What the configs of all methods share: how a variant is chosen, its views, data and budget."""

import difflib
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from ssl_jax.config import default_config
from ssl_jax.inputs.image.recipes import RECIPES

Variant = Callable[[ConfigDict], None]


def select(arg: str, method: dict[str, Any], *variants: Variant) -> ConfigDict:
    """The config that `arg` names: "cifar10", or with other views "imagenet,augment=moco_v2".

    Args:
      method: "name" and the hyperparameters of the method, which a variant may change.
      variants: named by their functions.
    """
    name, _, recipe = arg.partition(",augment=")
    by_name = {variant.__name__: variant for variant in variants}
    if name not in by_name:
        raise _unknown("variant", name, list(by_name))
    if recipe and recipe not in RECIPES:
        raise _unknown("augmentation", recipe, list(RECIPES))
    config = default_config()
    config.method = method
    by_name[name](config)
    if recipe:
        set_views(config, recipe, size=config.augment.size)
    return config


def _unknown(kind: str, name: str, choices: list[str]) -> ValueError:
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? The" if near else "the"
    return ValueError(f"unknown {kind} {name!r}; {hint} choices are: {', '.join(choices)}")


def set_views(config: ConfigDict, recipe: str, **overrides: Any) -> None:
    """Writes a recipe's views into the config: the first in full, the second where it differs."""
    first, second = (view._replace(**overrides) for view in RECIPES[recipe])
    config.augment.update(first._asdict())
    differs = {k: v for k, v in second._asdict().items() if v != getattr(first, k)}
    config.augment.second = differs


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 with the CIFAR stem, batch 512, 1000 epochs; SimCLR's views for CIFAR-10."""
    set_views(config, "simclr_cifar")
    config.data.source = "tfds:cifar10"
    config.model.update(name="resnet18", stem="cifar")
    config.train.update(batch_size=512, epochs=1000.0, log_every=50, checkpoint_every=2000)


def cifar10_cpu(config: ConfigDict) -> None:
    """A 10-layer ResNet of width 16 on 24x24 crops: learns something real on 2 CPU cores."""
    cifar10(config)
    set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.model.update(name="resnet10", width=0.25, zero_gamma=False)
    config.optim.update(name="adamw", lr=5e-3, lr_rule="constant", weight_decay=1e-4)
    config.optim.warmup_epochs = 0.2
    config.train.update(batch_size=128, steps=1100, log_every=25, checkpoint_every=250)
    config.eval.update(labels_per_class=(1000,), draws=1, knn_k=20)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50, colour work on the device; views, optimizer and length are each method's."""
    config.data.source = "tfds:imagenet2012"
    config.data.eval_split = "validation"
    config.augment.placement = "device"
    config.train.update(log_every=50, checkpoint_every=1250)
    config.eval.update(crop=0.875, batch_size=1024, baselines=False)


def vit(config: ConfigDict, name: str, patch_size: int = 16) -> None:
    """A Vision Transformer in the place of the ResNet."""
    kept = {field: config.model[field] for field in ("bn_group", "dtype", "mean", "std", "init")}
    own = {"name": name, "patch_size": patch_size, "pool": "token", "positions": "sincos"}
    config.model = own | kept
