"""Functions that the configs of several methods share: variants, views, data sets, encoders."""

import difflib
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from ssl_jax.config import default_config
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.field import AUTO
from ssl_jax.inputs.image.recipes import RECIPES
from ssl_jax.models.options import IMAGENET

Variant = Callable[[ConfigDict], None]

_CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
# Mean and standard deviation of the training images' pixels in [0, 1], per channel.
STATISTICS = {
    "imagenet": IMAGENET,
    "cifar10": {"mean": _CIFAR10_MEAN, "std": (0.247, 0.2435, 0.2616)},  # solo-learn
    # The mean of the deviations within images, as in lemniscate.pytorch and its descendants.
    "cifar10_within": {"mean": _CIFAR10_MEAN, "std": (0.2023, 0.1994, 0.201)},
    "folder": {"mean": (AUTO,), "std": (AUTO,)},  # by the number of channels
}


def select(
    arg: str, method: dict[str, Any], *variants: Variant, source: str = "digits"
) -> ConfigDict:
    """Returns the config of a variant.

    Args:
      arg: name of a variant, "cifar10", optionally with the views of another recipe,
        "imagenet,augment=moco_v2".
      method: "name" and hyperparameters of the method. A variant may change them.
      variants: functions that complete a config. A function's name is the variant's name.
      source: data source of all variants, whose modality decides some of the fields.

    Raises:
      Fault: unknown variant or unknown recipe.
    """
    name, _, recipe = arg.partition(",augment=")
    by_name = {variant.__name__: variant for variant in variants}
    if name not in by_name:
        raise _unknown("variant", name, list(by_name))
    if recipe and recipe not in RECIPES:
        raise _unknown("augmentation", recipe, list(RECIPES))
    config = default_config(source)
    config.method = method
    by_name[name](config)
    if recipe:
        set_views(config, recipe, size=config.augment.size)
    return config


def _unknown(kind: str, name: str, choices: list[str]) -> Fault:
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? The" if near else "the"
    message = f"unknown {kind} {name!r}; {hint} choices are: {', '.join(choices)}"
    return Fault(message, BAD_CONFIG)


def set_views(config: ConfigDict, recipe: str, **overrides: Any) -> None:
    """Writes the two views of a published recipe into the config.

    Args:
      recipe: name in `ssl_jax.inputs.image.recipes`.
      overrides: fields of both views that differ from the recipe.
    """
    first, second = (view._replace(**overrides) for view in RECIPES[recipe])
    config.augment.update(first._asdict())
    differs = {k: v for k, v in second._asdict().items() if v != getattr(first, k)}
    config.augment.second = differs


def standardise(config: ConfigDict, dataset: str) -> None:
    """Standardises images by the mean and standard deviation of a data set in STATISTICS.

    SimCLR's authors do not standardise, so its own variants do not call this function.
    """
    config.model.update(STATISTICS[dataset])


def imagenet(config: ConfigDict) -> None:
    """Selects ImageNet, its evaluation, and colour operations on the device."""
    config.data.source = "tfds:imagenet2012"
    config.data.eval_split = "validation"
    config.augment.placement = "device"
    config.train.update(log_every=50, checkpoint_every=1250)
    config.eval.update(crop=0.875, batch_size=1024, baselines=False)


def cifar10(config: ConfigDict) -> None:
    """Selects CIFAR-10."""
    config.data.source = "tfds:cifar10"
    config.train.update(log_every=50, checkpoint_every=2000)


def solo_learn_cifar10(config: ConfigDict, views: str) -> None:
    """Selects what solo-learn's recipes for CIFAR-10 (scripts/pretrain/cifar) have in common.

    ResNet-18 with PyTorch's initialisation (solo/methods/base.py), a batch of 256 and 1000 epochs.
    Their first convolution pads by 2 pixels; ours by 1.

    Args:
      views: name of the views in `ssl_jax.inputs.image.recipes`.
    """
    cifar10(config)
    standardise(config, "cifar10")
    set_views(config, views, size=32)
    config.model.update(name="resnet18", stem="cifar", zero_gamma=False)
    config.train.update(batch_size=256, epochs=1000.0)


def solo_learn_lars(config: ConfigDict, *, lr: float, weight_decay: float) -> None:
    """Selects the LARS of solo-learn's recipes for CIFAR-10: eta 0.02 and clip_lr.

    Biases and normalisation parameters are neither decayed nor adapted (exclude_bias_n_norm). In 10
    epochs of warm-up, solo-learn's rate rises from 3e-5 (solo/methods/base.py), ours from 0.

    Args:
      lr: learning rate per 256 images of the batch.
      weight_decay: weight decay.
    """
    config.optim.update(
        name="lars", lr=lr, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=weight_decay, momentum=0.9, lr_in_momentum=False,
        trust_coefficient=0.02, trust_clip=True,
    )  # fmt: skip


def cifar10_cpu(config: ConfigDict, *, steps: int) -> None:
    """Selects CIFAR-10 and a small encoder, which learns useful features on 2 CPU cores.

    The encoder is a 10-layer ResNet of width 16, for crops of 24x24 pixels. No paper has such small
    runs: their hyperparameters were chosen in this project.

    Args:
      steps: length of the run.
    """
    config.data.source = "tfds:cifar10"
    config.model.update(name="resnet10", width=0.25, stem="cifar", zero_gamma=False)
    # Epochs have no effect beside steps. Runs of earlier versions have this value.
    config.train.update(steps=steps, epochs=1000.0, log_every=25, checkpoint_every=250)
    config.eval.update(labels_per_class=(1000,), draws=1, knn_k=20)


def folder(config: ConfigDict) -> None:
    """Selects the user's images, a ResNet-18, AdamW, and sizes that follow from the data.

    AUTO fields are set when the run starts, by the rules of `ssl_jax.config.adapt`. The encoder is
    the one that timm and torchvision call resnet18. Adam's rate grows with the square root of the
    batch (arXiv 2205.10287), here to 1e-3 for a batch of 256.
    """
    config.data.source = "folder"
    set_views(config, "simclr_imagenet", size=96)
    config.model.update(name="resnet18", stem="imagenet", zero_gamma=True)
    config.optim.update(
        name="adamw", lr=6.25e-5, lr_rule="sqrt", schedule="cosine", warmup_epochs=AUTO,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.update(batch_size=AUTO, epochs=float(AUTO), log_every=10, checkpoint_every=100)
    config.eval.update(labels_per_class=(AUTO,), draws=5, knn_k=AUTO)
    # More training images would fill the memory with the raw pixels that are a baseline.
    # Batches are filled up: a large one would waste most of the work on few images.
    config.eval.update(max_train=10_000, batch_size=64)


def vit(config: ConfigDict, name: str, patch_size: int = 16) -> None:
    """Replaces the ResNet by a Vision Transformer."""
    shared = {field: config.model[field] for field in ("bn_group", "dtype", "mean", "std", "init")}
    own = {"name": name, "patch_size": patch_size, "pool": "token", "positions": "sincos"}
    config.model = own | shared


def split_resnet(config: ConfigDict, name: str, **fields: Any) -> None:
    """Replaces the ResNet by two of half the width: one sees the lightness, the other the colours.

    Args:
      config: config with a ResNet.
      name: such as "split_resnet18".
      fields: fields of the encoder that differ.
    """
    groups = {"colors": "lab", "first": (0,), "second": (1, 2)}
    config.model = config.model.to_dict() | {"name": name} | groups | fields
