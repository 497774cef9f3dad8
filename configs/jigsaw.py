"""Jigsaw puzzles (Noroozi and Favaro 2016, arXiv 1603.09246).

    python -m ssl_jax.train --config=configs/jigsaw.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, 2000 permutations, batch 256, 105 epochs, by VISSL
              pretrain/jigsaw/jigsaw_8gpu_resnet.yaml. The paper has AlexNet. Expected: 46.7 %
              linear top-1 (VISSL's model zoo). Not run here yet.
:cifar10      ResNet-18 on tiles of 16 pixels, 1000 permutations and normalised tiles as in the
              paper. No recipe is published for CIFAR-10: optimizer, batch and length are this
              project's choice. Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, tiles of 40 pixels from
              views of 144; batch, epochs and warm-up follow from the number of images.
              docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "jigsaw",
    "permutations": 2000,  # classes
    "tile_size": 64,  # pixels
    "jitter": 21,  # pixels by which a tile moves in its cell
    "normalize_tiles": True,  # each tile has the statistics of an average image
    "tile_dim": 1000,  # features of each tile that the classifier sees
    "hidden_dim": 0,  # of the classifier; 0: linear
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by VISSL: SGD at 0.1, divided by 10 at epochs 30, 60, 90 and 100 of 105.

    VISSL crops 255 pixels from images whose short side has 256.
    """
    common.imagenet(config)
    common.standardise(config, "imagenet")
    _whole(config, size=255, grayscale=0.66)
    config.method.normalize_tiles = False
    config.model.update(name="resnet50", zero_gamma=False)
    config.optim.update(
        name="sgd", lr=0.1, lr_rule="linear", schedule="step",
        drops=(30 / 105, 60 / 105, 90 / 105, 100 / 105), drop=0.1,
        warmup_epochs=5.0, weight_decay=1e-4, momentum=0.9,
    )  # fmt: skip
    config.train.update(batch_size=256, epochs=105.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 on images enlarged to 60 pixels, so that a tile has 16."""
    common.cifar10(config)
    common.standardise(config, "cifar10")
    _whole(config, size=60, grayscale=0.3)
    config.method.update(permutations=1000, tile_size=16, jitter=4)
    config.model.update(name="resnet18", stem="cifar", zero_gamma=False)
    config.optim.update(
        name="sgd", lr=0.1, lr_rule="linear", schedule="cosine", warmup_epochs=5.0,
        weight_decay=5e-4, momentum=0.9,
    )  # fmt: skip
    config.train.update(batch_size=256, epochs=200.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores, with 100 permutations and normalised tiles.

    With plain tiles, the network solves more puzzles, but its features gain nothing over untrained
    ones, and after 1,200 steps they are worse (docs/methods.md).
    """
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    _whole(config, size=30, grayscale=0.3)
    config.method.update(permutations=100, tile_size=8, jitter=2, tile_dim=64)
    config.optim.update(
        name="adamw", lr=3e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images, with 100 permutations."""
    common.folder(config)
    common.standardise(config, "folder")
    _whole(config, size=144, grayscale=0.3)
    config.method.update(
        permutations=100, tile_size=40, jitter=8, normalize_tiles=False, tile_dim=128
    )


def _whole(config: ConfigDict, *, size: int, grayscale: float) -> None:
    """Selects the largest square of each image as its only view."""
    common.set_views(
        config, "crop_flip", size=size, crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0),
        interpolation="bilinear", grayscale=grayscale,
    )  # fmt: skip
    config.augment.views = 1
