"""Context encoder (Pathak et al. 2016, arXiv 1604.07379): fills a hole in the image.

    python -m ssl_jax.train --config=configs/context_encoder.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-18 on crops of 128 pixels, batch 64, 500 epochs, by the authors' code for
              centre holes (pathak22/context-encoder train.lua and README.md), whose encoder has
              six convolutions. No linear accuracy is published. Not run here yet.
:cifar10      ResNet-18 with the same losses on 32 pixels, this project's choice. Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 128 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.

`benchmarks/context_fillings.py` draws what each of the three losses puts into the same hole.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "context_encoder",
    "loss": "both",  # both | reconstruction | adversarial
    "mask": "center",  # center | blocks | free_form
    "hole_area": 0.25,  # fraction of the image: half of each side
    "blocks": 4,  # of the mask "blocks"
    "cells": 8,  # of the mask "free_form": 0.06 of 128 pixels
    "overlap": 4,  # visible pixels around a hole that are predicted, too
    "overlap_weight": 10.0,
    "reconstruction_weight": 0.999,  # of "both"; the adversarial loss has the rest
    "bottleneck_dim": 4000,
    "decoder_width": 32,
    "discriminator_width": 64,
}
GENERATOR = ("encoder", "bottleneck", "decoder")  # modules of the parameters


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """Centre holes of 64 pixels with overlap 4 and bottleneck 4000, by the README and train.lua.

    Adam with b1 0.5 at 2e-3 for the generator and 2e-4 for the discriminator: train.lua multiplies
    the generator's rate by 10 if both losses are used. With one loss, remove `optim.groups`. It has
    neither weight decay nor a schedule. Its images are resized to 350 pixels and cut to 128 x
    128, about 0.13 of a square image, and flipped (data/donkey_folder.lua). ResNet-18 makes a map
    of 4 x 4 x 512 like its encoder.
    """
    common.imagenet(config)
    common.standardise(config, "imagenet")
    common.set_views(
        config, "crop_flip", size=128, crop_area=(0.13, 0.13), crop_aspect=(1.0, 1.0),
        interpolation="bilinear",
    )  # fmt: skip
    config.augment.views = 1
    config.model.update(name="resnet18", zero_gamma=False)
    _adam(config, lr=2e-4)
    config.optim.groups = {module: {"lr": 2e-3} for module in GENERATOR}
    config.train.update(batch_size=64, epochs=500.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 on 32 pixels: a hole of 16 with an overlap of 1, the paper's fraction."""
    common.cifar10(config)
    common.standardise(config, "cifar10")
    common.set_views(config, "crop_flip", size=32, crop_area=(0.5, 1.0))
    config.augment.views = 1
    config.model.update(name="resnet18", stem="cifar", zero_gamma=False)
    config.method.update(overlap=1, bottleneck_dim=1000)
    _adam(config, lr=2e-4)
    config.optim.groups = {module: {"lr": 2e-3} for module in GENERATOR}
    config.train.update(batch_size=64, epochs=500.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores. Random blocks teach better features than a centre.

    Both networks have one rate, so that `method.loss` can be changed alone.
    """
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    common.set_views(config, "crop_flip", size=24, crop_area=(0.5, 1.0))
    config.augment.views = 1
    config.method.update(
        mask="blocks", cells=4, overlap=1, bottleneck_dim=128, discriminator_width=32
    )
    _adam(config, lr=2e-3)
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images, with both losses on centre holes."""
    common.folder(config)
    common.standardise(config, "folder")
    common.set_views(config, "crop_flip", size=128, crop_area=(0.2, 1.0))
    config.augment.views = 1
    config.method.update(bottleneck_dim=1000)
    config.optim.update(weight_decay=0.0, momentum=0.5)


def _adam(config: ConfigDict, *, lr: float) -> None:
    """Sets Adam with b1 0.5, without decay and schedule."""
    config.optim.update(
        name="adamw", lr=lr, lr_rule="constant", schedule="constant", warmup_epochs=0.0,
        weight_decay=0.0, momentum=0.5, b2=0.999,
    )  # fmt: skip
