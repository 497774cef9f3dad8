"""Siamese networks with a margin loss (Hadsell 2006) or a triplet loss (arXiv 1503.03832).

    python -m ssl_jax.train --config=configs/siamese.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 512, 100 epochs. Both papers learn from labelled or known pairs, so
              no recipe and no number are published for two views: optimizer, batch and length are
              this project's choice. Not run here yet.
:cifar10      ResNet-18, batch 512, 1000 epochs, this project's choice, too. Not run here yet.
:cifar10_symmetric
              cifar10 with the symmetric triplet loss: margin and hardest negatives of VSE++
              (arXiv 1707.05612), which compares images with sentences. Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 96 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.

"VARIANT,augment=simclr_cifar" uses the views of another recipe in `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "siamese",
    "loss": "triplet",  # triplet | symmetric_triplet | margin
    "margin": 0.2,
    "mining": "semi_hard",  # of triplets: semi_hard | batch_hard | all
    "hidden_dim": 0,  # 0: the encoder's width
    "output_dim": 128,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, cifar10_symmetric, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 with SimCLR's views. Width 128, margin 0.2 and semi-hard mining are FaceNet's."""
    common.imagenet(config)
    common.set_views(config, "simclr_imagenet", size=224)
    config.model.update(name="resnet50", zero_gamma=True)
    config.optim.update(
        name="sgd", lr=0.05, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=1e-4, momentum=0.9,
    )  # fmt: skip
    config.train.update(batch_size=512, epochs=100.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 with the same loss as on ImageNet."""
    common.cifar10(config)
    common.set_views(config, "simclr_cifar", size=32)
    config.model.update(name="resnet18", stem="cifar", zero_gamma=True)
    config.optim.update(
        name="sgd", lr=0.03, lr_rule="constant", schedule="cosine", warmup_epochs=10.0,
        weight_decay=5e-4, momentum=0.9,
    )  # fmt: skip
    config.train.update(batch_size=512, epochs=1000.0)


def cifar10_symmetric(config: ConfigDict) -> None:
    """cifar10 with the negatives of each view among the other views of other images."""
    cifar10(config)
    config.method.update(loss="symmetric_triplet", margin=0.2, mining="batch_hard")


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.method.update(hidden_dim=256)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images."""
    common.folder(config)
