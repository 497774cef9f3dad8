"""Rotation prediction (Gidaris et al. 2018, arXiv 1803.07728).

    python -m ssl_jax.train --config=configs/rotation.py:VARIANT --workdir=runs/NAME

:imagenet           ResNet-50, batch 128 (512 rotated images), 70 epochs, by mmselfsup
                    rotation_pred/rotation-pred_resnet50_8xb16-steplr-70e_in1k.py. The paper has
                    AlexNet. Expected: about 48 % linear top-1 (VISSL's model zoo, 105 epochs with
                    one rotation per image: 48.2). Not run here yet.
:cifar10            ResNet-18 by the optimizer of the authors' CIFAR10_RotNet_NIN4blocks.py, which
                    has a network in network. Batch 128, 200 epochs. Not run here yet.
:cifar10_angle      The same with angles of any size. Not in the paper. Not run here yet.
:folder             Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 96 pixels;
                    batch, epochs and warm-up follow from the number of images. Only for images that
                    have an upright orientation. docs/train.md has examples.
:cifar10_cpu        Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
                    tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md
                    has results of shorter runs.
:cifar10_cpu_angle  The same with angles of any size.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "rotation",
    "angles": "quarter",  # quarter: 0, 90, 180, 270 degrees | any: regression of the angle
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(
        arg, METHOD, cifar10, cifar10_angle, cifar10_cpu, cifar10_cpu_angle, folder, imagenet
    )


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by mmselfsup: 8 GPUs of 16 images in four rotations, SGD at 0.2.

    The rate is divided by 10 at epochs 30 and 50 of 70.
    """
    common.imagenet(config)
    common.standardise(config, "imagenet")
    common.set_views(config, "crop_flip", size=224, interpolation="bilinear")
    config.augment.views = 1
    config.model.update(name="resnet50", zero_gamma=False)
    config.optim.update(
        name="sgd", lr=0.2, lr_rule="constant", schedule="step", drops=(30 / 70, 50 / 70), drop=0.1,
        warmup_epochs=5.0, weight_decay=1e-4, momentum=0.9, decay_all=True,
    )  # fmt: skip
    config.train.update(batch_size=128, epochs=70.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 by the authors' optimizer: Nesterov momentum, rate 0.1.

    The rate is divided by 5 at epochs 60, 120 and 160 of 200. The authors shift the image by up to
    4 pixels.
    """
    common.cifar10(config)
    common.standardise(config, "cifar10")
    common.set_views(config, "crop_flip", size=32, crop_area=(0.76, 1.0), crop_aspect=(1.0, 1.0))
    config.augment.views = 1
    config.model.update(name="resnet18", stem="cifar", zero_gamma=False)
    config.optim.update(
        name="sgd", lr=0.1, lr_rule="constant", schedule="step", drops=(0.3, 0.6, 0.8), drop=0.2,
        warmup_epochs=0.0, weight_decay=5e-4, momentum=0.9, nesterov=True, decay_all=True,
    )  # fmt: skip
    config.train.update(batch_size=128, epochs=200.0)


def cifar10_angle(config: ConfigDict) -> None:
    """Regresses an angle of any size, with the recipe of `cifar10`."""
    cifar10(config)
    config.method.angles = "any"


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    common.set_views(config, "crop_flip", size=24, crop_area=(0.5, 1.0))
    config.augment.views = 1
    config.optim.update(
        name="adamw", lr=3e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def cifar10_cpu_angle(config: ConfigDict) -> None:
    """Regresses an angle of any size, with the recipe of `cifar10_cpu`."""
    cifar10_cpu(config)
    config.method.angles = "any"


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images."""
    common.folder(config)
    common.standardise(config, "folder")
    common.set_views(config, "crop_flip", size=96)
    config.augment.views = 1
