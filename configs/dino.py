"""DINO (Caron et al. 2021, arXiv 2104.14294), and its variants by argument.

    python -m ssl_jax.train --config=configs/dino.py:VARIANT --workdir=runs/NAME

:imagenet     ViT-S/16, batch 1024, 2 views of 224 and 8 of 96 pixels, 100 epochs; not run here
              yet.
:cifar10      ResNet-18, batch 256, 1000 epochs. Expected: 89.5 % linear (solo-learn); not run
              here yet.
:cifar10_cpu  with --config.data.dir=DATA_DIR, where tensorflow-datasets has prepared cifar10: a
              small encoder for 2 CPU cores; a part of it is measured in docs/methods.md.

"VARIANT,augment=simclr_cifar" takes the views of another recipe of `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "dino",
    "prototypes": 65536,
    "student_temperature": 0.1,
    "teacher_temperature": 0.04,
    "warmup_temperature": 0.04,
    "warmup_epochs": 0.0,
    "center_momentum": 0.9,
    "momentum": 0.996,
    "freeze_epochs": 1.0,
    "hidden_dim": 2048,
    "bottleneck_dim": 256,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """`arg`: a variant, and optionally other views: "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, imagenet)


def imagenet(config: ConfigDict) -> None:
    """The defaults of the authors' code, but for these: the gradient is clipped as a whole, not by
    parameter; no stochastic depth (theirs 0.1); fixed positions; the rate ends at 0 (1e-6)."""
    common.imagenet(config)
    common.set_views(config, "byol", crop_area=(0.4, 1.0))
    config.augment.local = {"views": 8, "size": 96, "crop_area": (0.05, 0.4), "blur": 0.5}
    common.vit(config, "vit_small")
    config.optim.update(name="adamw", lr=5e-4, weight_decay=0.04, weight_decay_end=0.4)
    config.optim.update(warmup_epochs=10.0, clip_norm=3.0)
    config.train.update(batch_size=1024, epochs=100.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 under LARS, a smaller last layer."""
    common.cifar10(config)
    config.method.update(prototypes=4096)
    config.optim.update(lr=0.3, weight_decay=1e-6, lr_in_momentum=False)
    config.train.batch_size = 256


def cifar10_cpu(config: ConfigDict) -> None:
    """The small encoder that learns something real on 2 CPU cores, with two small crops."""
    common.cifar10_cpu(config)
    config.augment.local = {"views": 2, "size": 16, "crop_area": (0.1, 0.4)}
    config.method.update(prototypes=512, momentum=0.98, freeze_epochs=0.1)
    config.method.update(hidden_dim=256, bottleneck_dim=64)
