"""Relative position of patches, or context prediction (Doersch et al. 2015, arXiv 1505.05192).

    python -m ssl_jax.train --config=configs/relative_position.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 512, 70 epochs, by mmselfsup
              relative_loc/relative-loc_resnet50_8xb64-steplr-70e_in1k.py, which has grey images
              instead of the paper's guards. The paper has AlexNet. Expected: 40.4 % linear top-1
              (mmselfsup). Not run here yet. The guards of the paper are
              --config.method.colour=drop (or project) and --config.method.downsample=0.33, with
              --config.augment.grayscale=0.
:cifar10      ResNet-18 on patches of 16 pixels. No recipe is published for CIFAR-10: optimizer,
              batch and length are this project's choice. Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, patches of 40 pixels from
              views of 168 with the paper's guards; batch, epochs and warm-up follow from the number
              of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "relative_position",
    "tile_size": 64,  # side of a patch, in pixels
    "jitter": 21,  # pixels by which a patch moves in its cell
    "colour": "keep",  # guard against chromatic aberration: keep | drop | project
    "downsample": 0.0,  # probability that a patch loses resolution
    "hidden_dim": 4096,  # of the head
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by mmselfsup: SGD at 0.2, divided by 10 at epochs 30 and 50 of 70.

    The weights of the head decay five times as fast. Crops have 255 pixels of images whose short
    side has 292: 57 % of an image with the usual aspect of 4 / 3. Images are not mirrored.
    """
    common.imagenet(config)
    common.standardise(config, "imagenet")
    _square(config, size=255, area=(0.57, 0.57), grayscale=0.66, flip=0.0)
    config.model.update(name="resnet50", zero_gamma=False)
    config.optim.update(
        name="sgd", lr=0.2, lr_rule="constant", schedule="step", drops=(30 / 70, 50 / 70), drop=0.1,
        warmup_epochs=5.0, weight_decay=1e-4, momentum=0.9, decay_all=True,
        groups={"head": {"weight_decay": 5e-4}},
    )  # fmt: skip
    config.train.update(batch_size=512, epochs=70.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 on images enlarged to 66 pixels, so that a patch has 16."""
    common.cifar10(config)
    common.standardise(config, "cifar10")
    _square(config, size=66, area=(0.8, 1.0), grayscale=0.66)
    config.method.update(tile_size=16, jitter=6, hidden_dim=1024)
    config.model.update(name="resnet18", stem="cifar", zero_gamma=False)
    config.optim.update(
        name="sgd", lr=0.1, lr_rule="linear", schedule="cosine", warmup_epochs=5.0,
        weight_decay=5e-4, momentum=0.9,
    )  # fmt: skip
    config.train.update(batch_size=256, epochs=200.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    _square(config, size=30, area=(0.8, 1.0), grayscale=0.2)
    config.method.update(tile_size=8, jitter=2, hidden_dim=256)
    config.optim.update(
        name="adamw", lr=3e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images, with the guards of the paper."""
    common.folder(config)
    common.standardise(config, "folder")
    _square(config, size=168, area=(0.5, 1.0), grayscale=0.0)
    config.method.update(tile_size=40, jitter=8, hidden_dim=256, colour="drop", downsample=0.33)


def _square(
    config: ConfigDict, *, size: int, area: tuple[float, float], grayscale: float, flip: float = 0.5
) -> None:
    """Selects a random square of each image as its only view."""
    common.set_views(
        config, "crop_flip", size=size, crop_area=area, crop_aspect=(1.0, 1.0),
        interpolation="bilinear", grayscale=grayscale, flip=flip,
    )  # fmt: skip
    config.augment.views = 1
