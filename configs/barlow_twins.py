"""Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230).

    python -m ssl_jax.train --config=configs/barlow_twins.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 2048, 1000 epochs, by facebookresearch/barlowtwins main.py. Expected:
              73.5 % linear top-1 (their README); 73.2 % in the paper (table 1), with weight decay
              1.5e-6. Not run here yet.
:cifar10      ResNet-18, batch 256, 1000 epochs, by solo-learn scripts/pretrain/cifar/barlow.yaml.
              Expected: 92.10 % linear (solo-learn's README). Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 96 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.
:spoken_digit Sound instead of images, for 2 CPU cores. Pass --config.data.dir=DIR, the folder of
              the Free Spoken Digit Dataset's files. docs/audio.md has results.

"VARIANT,augment=simclr_cifar" uses the views of another recipe in `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "barlow_twins",
    "lambda_": 0.0051,  # weight of the off-diagonal terms
    "scale": 0.024,  # of the loss: see imagenet
    "hidden_dim": 8192,  # projector of three layers
    "output_dim": 8192,
    "apart": True,  # each view has its own BatchNorm statistics
    "last_bias": False,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet, spoken_digit)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by the authors' main.py: LARS at 0.2 * batch / 256 for weights.

    Biases and normalisation parameters get 0.0048 * batch / 256. `scale` = 0.024 has this effect,
    because LARS adapts weights to any scale of the loss, but not biases. The scaled gradient needs
    a scaled decay. Their rate ends at 0.001 of its peak; ours at 0.
    """
    common.imagenet(config)
    common.standardise(config, "imagenet")
    common.set_views(config, "barlow_twins", size=224)
    config.model.update(name="resnet50", zero_gamma=True)
    config.optim.update(
        name="lars", lr=0.2, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=config.method.scale * 1e-6, momentum=0.9, lr_in_momentum=False,
    )  # fmt: skip
    config.train.update(batch_size=2048, epochs=1000.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 by solo-learn's barlow.yaml. solo-learn scales the loss, too, but not the decay."""
    common.solo_learn_cifar10(config, "solo_asymmetric")
    config.method.update(hidden_dim=2048, output_dim=2048, scale=0.1)
    common.solo_learn_lars(config, lr=0.3, weight_decay=1e-4)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    common.set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.method.update(hidden_dim=256, output_dim=256, lambda_=0.02, scale=1.0)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def spoken_digit(config: ConfigDict) -> None:
    """Sound: two random windows of spoken digits, and the small encoder of `cpc_audio`."""
    common.spoken_digit_pairs(config)
    config.method.update(hidden_dim=256, output_dim=256, lambda_=0.02, scale=1.0)


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images, with a projector of width 2048."""
    common.folder(config)
    common.standardise(config, "folder")
    common.set_views(config, "barlow_twins", size=96)
    config.method.update(hidden_dim=2048, output_dim=2048, scale=0.1)
