"""DINO (Caron et al. 2021, arXiv 2104.14294).

    python -m ssl_jax.train --config=configs/dino.py:VARIANT --workdir=runs/NAME

:imagenet     ViT-S/16, batch 512, 2 views of 224 pixels and 8 of 96 pixels, 100 epochs: the
              "vanilla" run of facebookresearch/dino's README, with the defaults of its
              main_dino.py. Expected: 69.3 % kNN, about 73.8 % linear top-1 (their README). Not run
              here yet.
:cifar10      ResNet-18, batch 256, 1000 epochs, by solo-learn scripts/pretrain/cifar/dino.yaml.
              Expected: 89.52 % linear (solo-learn's README). Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ViT-Ti/16, views of 128 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.

"VARIANT,augment=simclr_cifar" uses the views of another recipe in `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "dino",
    "prototypes": 65536,  # outputs of the last layer
    "student_temperature": 0.1,
    "teacher_temperature": 0.04,
    "warmup_temperature": 0.04,  # of the teacher at the start
    "warmup_epochs": 0.0,
    "center_momentum": 0.9,
    "momentum": 0.996,  # of the teacher at the first step; rises to 1 by a cosine
    "freeze_epochs": 1.0,  # in which the last layer is frozen
    "skip_frozen": True,  # by the optimizer; False: it makes updates without gradient
    "hidden_dim": 2048,
    "bottleneck_dim": 256,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ViT-S/16 with the defaults of the authors' code, except for four differences.

    The gradient is clipped as a whole instead of per parameter. There is no stochastic depth
    (authors: 0.1). Position embeddings are fixed, because learned ones fit one size of views only.
    The learning rate ends at 0 (authors: 1e-6).
    """
    common.imagenet(config)
    common.standardise(config, "imagenet")
    common.set_views(config, "dino", size=224)
    config.augment.local = {"views": 8, "size": 96, "crop_area": (0.05, 0.4), "blur": 0.5}
    common.vit(config, "vit_small")
    config.optim.update(
        name="adamw", lr=5e-4, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=0.04, weight_decay_end=0.4, clip_norm=3.0, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.update(batch_size=512, epochs=100.0)  # 8 GPUs with 64 images each


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 by solo-learn's dino.yaml and the defaults of its solo/methods/dino.py."""
    common.solo_learn_cifar10(config, "solo_asymmetric")
    config.method.update(prototypes=4096, momentum=0.9995)
    config.method.update(teacher_temperature=0.07)  # warmup_teacher_temperature_epochs is 0
    common.solo_learn_lars(config, lr=0.3, weight_decay=1e-6)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores, with two small crops."""
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    common.set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.augment.local = {"views": 2, "size": 16, "crop_area": (0.1, 0.4)}
    config.method.update(prototypes=512, momentum=0.98, freeze_epochs=0.1)
    config.method.update(hidden_dim=256, bottleneck_dim=64)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ViT-Ti/16 on a folder of your own images, with four small crops."""
    common.folder(config)
    common.standardise(config, "folder")
    common.set_views(config, "dino", size=128)
    config.augment.local = {"views": 4, "size": 64, "crop_area": (0.05, 0.4), "blur": 0.5}
    common.vit(config, "vit_tiny")
    config.method.update(prototypes=1024, momentum=0.99, hidden_dim=512, bottleneck_dim=128)
    config.optim.update(lr=3e-5, weight_decay=0.04, weight_decay_end=0.4, clip_norm=3.0)
