"""Colorization (Zhang, Isola and Efros 2016, arXiv 1603.08511).

    python -m ssl_jax.train --config=configs/colorization.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50 with the authors' loss, views and optimizer (section 3 of the paper,
              richzhang/colorization, branch caffe: models/colorization_train_val_v2.prototxt,
              train/solver.prototxt). Their networks are VGG for pictures and AlexNet for features.
              Expected with AlexNet: 35.2 % linear top-1 from conv4 or conv5. Not run here yet.
:cifar10      ResNet-18, batch 256, 200 epochs. Not published: this project's choice. Not run yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 96 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.

The encoder sees only the lightness of an image (model.colors), in evaluation as well.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "colorization",
    "stride": 4,  # pixels between two predictions
    "neighbours": 5,  # bins in the target of a colour
    "uniform": 0.5,  # share of the uniform distribution when rare colours are weighed
    "temperature": 0.38,  # of the predicted colours in pictures
    "hidden_dim": 256,  # channels of the head, as before the authors' last layer
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", "cifar10", "folder" or "cifar10_cpu"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50; Adam at 3.16e-5, batch 40 and 500,000 steps by the authors' solver.prototxt.

    The authors crop 176 of 256 pixels: 0.47 of the area. Their weight decay is part of the
    gradient; AdamW's is not.
    """
    common.imagenet(config)
    common.set_views(config, "crop_flip", size=176, crop_area=(0.47, 0.47), crop_aspect=(1.0, 1.0))
    config.augment.views = 1
    config.model.update(name="resnet50", colors="lightness")
    config.optim.update(
        name="adamw", lr=3.16e-5, lr_rule="constant", schedule="step", warmup_epochs=0.0,
        drops=(0.45, 0.9), drop=0.1, weight_decay=1e-3, momentum=0.9, b2=0.99,
    )  # fmt: skip
    config.train.update(batch_size=40, steps=500_000)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 that sees images of 32 pixels, and predicts the colour of every second pixel."""
    common.cifar10(config)
    common.set_views(config, "crop_flip", size=32, crop_area=(0.5, 1.0))
    config.augment.views = 1
    config.model.update(name="resnet18", stem="cifar", colors="lightness")
    config.method.update(stride=2)
    config.optim.update(
        name="adamw", lr=1e-3, lr_rule="constant", schedule="cosine", warmup_epochs=5.0,
        weight_decay=1e-3, momentum=0.9, b2=0.99,
    )  # fmt: skip
    config.train.update(batch_size=256, epochs=200.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.set_views(config, "crop_flip", size=24, crop_area=(0.2, 1.0))
    config.augment.views = 1
    config.model.colors = "lightness"
    config.method.update(hidden_dim=64)
    config.optim.update(
        name="adamw", lr=2e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.99,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own colour images."""
    common.folder(config)
    common.set_views(config, "crop_flip", size=96, crop_area=(0.2, 1.0))
    config.augment.views = 1
    config.model.colors = "lightness"
