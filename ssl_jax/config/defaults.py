"""Configs to start from: a pre-training, a fine-tuning, and weights of another project."""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from ssl_jax import inputs, plugins
from ssl_jax.config import fields, valid
from ssl_jax.field import Field, Unset
from ssl_jax.inputs.image.recipes import RECIPES


def default_config(source: str = "digits") -> ConfigDict:
    """Returns a config with every field of a pre-training, for a file in `configs/` to complete.

    Fields that belong to a recipe, such as `optim.lr`, are None: `problems` refuses them until the
    file or the command line sets them. The model has a ResNet's fields.

    A config file that names a source outside the package allows its module to be imported.

    Args:
      source: `config.data.source`, whose modality decides the fields of `augment` and some of
        `data`.
    """
    if plugins.is_external(source):
        plugins.allow(source)
    return untrusted_defaults(source)


def allow_modules(config: ConfigDict) -> None:
    """Allows the modules outside the package that a config written by the user names."""
    for module in external_modules(config):
        plugins.allow(module)


def check_modules(config: ConfigDict) -> None:
    """Raises Fault if a config that the user did not write names a module that is not allowed."""
    for module in external_modules(config):
        plugins.check_allowed(module)


def external_modules(config: ConfigDict) -> list[str]:
    """Returns the modules outside the package that a config names, without importing them."""
    names = (config.data.source, config.method.name, config.model.name)
    return [name.partition(":")[0] for name in names if plugins.is_external(name or "")]


def untrusted_defaults(source: str) -> ConfigDict:
    """Returns `default_config(source)` without allowing the source's module to be imported."""
    config = ConfigDict()
    config.data = _section(fields.DATA + fields.data_fields(source))
    config.data.source = source
    config.augment = inputs.modality(source).default_fields()
    config.model = _section(fields.MODEL + fields.RESNET)
    config.method = _section(fields.METHOD)
    config.optim = _section(fields.OPTIM)
    config.train = _section(fields.TRAIN)
    config.parallel = _section(fields.PARALLEL)
    config.eval = _section(fields.EVAL)
    return config


def every_data_field() -> ConfigDict:
    """Returns a `data` section with the fields of every modality of the package.

    Verbs whose flags are defined before the run's config is read take it. `same_data.update`
    refuses the fields that the run's source lacks.
    """
    rows = {row.name: row for source in inputs.MODALITIES for row in fields.data_fields(source)}
    return ConfigDict(_section((*fields.DATA, *rows.values())))


def _section(rows: tuple[Field, ...]) -> dict[str, Any]:
    return {row.name.partition(".")[2]: _value(row.default) for row in rows}


def _value(default: Any) -> Any:
    # A placeholder is None, but knows the type by which a flag is parsed.
    return placeholder(default.type) if isinstance(default, Unset) else default


def finetuning_config(pretrained: ConfigDict) -> ConfigDict:
    """Returns the default config for fine-tuning a run.

    The recipe is SimCLR's for few labels (arXiv 2002.05709, appendix on semi-supervised learning):
    SGD with Nesterov momentum at 0.05 * batch / 256, 60 epochs (30 epochs for 10 % of the labels),
    no warm-up, no weight decay. SimCLR v2's LARS at 0.005 * sqrt(batch) needs long runs of large
    batches: on CIFAR-10, 400 steps of 128 images ended 10 points below this recipe.

    Images are cropped and flipped as in pre-training, without its other augmentations. A modality
    without `light_fields` keeps the augmentations of pre-training.

    Args:
      pretrained: config of the pre-training run, or from `imported_config`.
    """
    config = pretrained.copy_and_resolve_references()
    modality = inputs.modality(pretrained.data.source)
    with config.unlocked():
        if hasattr(modality, "light_fields"):
            config.augment = modality.light_fields(pretrained.augment.to_dict())
        config.optim = _section(fields.OPTIM)
        config.optim.update(
            name="sgd", lr=0.05, lr_rule="linear", schedule="cosine", warmup_epochs=0.0,
            weight_decay=0.0, momentum=0.9, nesterov=True,
        )  # fmt: skip
        config.train.update(epochs=60.0, steps=0, microbatch=0, noise_scale=False, probe=False)
        config.train.stop_on = ""
        config.train.batch_size = min(pretrained.train.batch_size or 1024, 1024)
        config.finetune = _section(fields.FINETUNE)
    return config


def imported_config(model: dict[str, Any], size: int, crop: float, channels: int = 3) -> ConfigDict:
    """Returns the config of a run in whose place another project trained the weights.

    Args:
      model: fields of `models.get`.
      size: width and height of the images, in pixels.
      crop: central part of an image's short side that evaluation shows.
      channels: channels of the images.
    """
    config = evaluation_config()
    with config.unlocked():
        run_fields = {field: config.model[field] for field in ("bn_group", "dtype", "init")}
        config.model = {**model, **run_fields}
        config.method = {"name": valid.IMPORTED}
        config.augment.update(size=size, crop_area=(0.08, 1.0))
        config.train.batch_size = 256  # of fine-tuning
        config.eval.crop = crop
        config.data.channels = channels
    return config


def evaluation_config() -> ConfigDict:
    """Returns the config for evaluating weights that no run of ours trained.

    Alignment and uniformity are measured between SimCLR's views, whatever the weights.
    """
    config = default_config()
    config.augment.update(RECIPES["simclr_imagenet"][0]._asdict())
    return config
