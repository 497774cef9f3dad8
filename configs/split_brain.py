"""Split-brain autoencoder (Zhang, Isola and Efros 2017, arXiv 1611.09842).

    python -m ssl_jax.train --config=configs/split_brain.py:VARIANT --workdir=runs/NAME

:imagenet     Two ResNet-50 of half the width, with the crops, targets and optimizer of the paper's
              AlexNets as far as they are published (section 4.1), and the optimizer of
              configs/colorization.py. Expected with AlexNet: 35.4 % linear top-1 (paper, table 1).
              Not run here yet.
:cifar10      Two ResNet-18 of half the width, batch 256, 200 epochs. Not published: this project's
              choice. Not run yet.
:folder       Your own images: pass --config.data.dir=IMAGES. Two ResNet-18 of half the width, views
              of 96 pixels; batch, epochs and warm-up follow from the number of images.
              docs/train.md has examples.
:cifar10_cpu  Two small encoders for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.

Other channels: images with depth as a fourth channel are split into RGB and depth by
--config.data.channels=4 --config.model.colors=rgb --config.model.first='(0,1,2)'
--config.model.second='(3,)' --config.method.loss=regression.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "split_brain",
    "loss": "classification",  # classification | regression
    "stride": 4,  # pixels between two predictions
    "hidden_dim": 256,  # channels of each half's head
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", "cifar10", "folder" or "cifar10_cpu"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50; crops of 180 pixels and 12 x 12 predictions as in the paper."""
    common.imagenet(config)
    common.set_views(config, "crop_flip", size=180, crop_area=(0.5, 0.5), crop_aspect=(1.0, 1.0))
    config.augment.views = 1
    common.split_resnet(config, "split_resnet50")
    config.method.update(stride=15)
    config.optim.update(
        name="adamw", lr=3.16e-5, lr_rule="constant", schedule="step", warmup_epochs=0.0,
        drops=(0.45, 0.9), drop=0.1, weight_decay=1e-3, momentum=0.9, b2=0.99,
    )  # fmt: skip
    config.train.update(batch_size=40, steps=500_000)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 that sees images of 32 pixels, and predicts every second pixel."""
    common.cifar10(config)
    common.set_views(config, "crop_flip", size=32, crop_area=(0.5, 1.0))
    config.augment.views = 1
    common.split_resnet(config, "split_resnet18", stem="cifar")
    config.method.update(stride=2)
    config.optim.update(
        name="adamw", lr=1e-3, lr_rule="constant", schedule="cosine", warmup_epochs=5.0,
        weight_decay=1e-3, momentum=0.9, b2=0.99,
    )  # fmt: skip
    config.train.update(batch_size=256, epochs=200.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains two small encoders, together as wide as those of the other methods."""
    common.cifar10_cpu(config, steps=1100)
    common.set_views(config, "crop_flip", size=24, crop_area=(0.2, 1.0))
    config.augment.views = 1
    common.split_resnet(config, "split_resnet10")
    config.method.update(hidden_dim=64)
    config.optim.update(
        name="adamw", lr=2e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.99,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 of half the width, twice, on a folder of your own colour images."""
    common.folder(config)
    common.set_views(config, "crop_flip", size=96, crop_area=(0.2, 1.0))
    config.augment.views = 1
    common.split_resnet(config, "split_resnet18")
