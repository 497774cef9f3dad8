"""BYOL (Grill et al. 2020, arXiv 2006.07733).

    python -m ssl_jax.train --config=configs/byol.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 4096, 1000 epochs, by deepmind-research byol/configs/byol.py.
              Expected: 74.3 % linear top-1 (paper, table 1). Not run here yet.
:imagenet_300, :imagenet_100  The authors' presets for shorter runs. Expected: 72.5 % after 300
              epochs. Not run here yet.
:cifar10      ResNet-18, batch 256, 1000 epochs, by solo-learn scripts/pretrain/cifar/byol.yaml.
              Expected: 92.58 % linear (solo-learn's README). Not run here yet.
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
    "name": "byol",
    "momentum": 0.996,  # of the target at the first step; rises to 1 by a cosine
    "hidden_dim": 4096,  # projector and predictor, two layers each
    "output_dim": 256,
    "target_init": "own",  # "copy": the target starts as a copy of the online network
    "output_norm": False,  # BatchNorm without scale and bias at the end of the projector
    "last_bias": False,
}
# For short runs. In 400 steps of the zoo (benchmarks/zoo.py), a target with its own weights reaches
# 35.3 % linear, a copied one 39.4 %, and the BatchNorm adds 0.9 (one seed).
_SHORT_RUN = {"target_init": "copy", "output_norm": True}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(
        arg,
        METHOD,
        cifar10,
        cifar10_cpu,
        folder,
        imagenet,
        imagenet_300,
        imagenet_100,
        spoken_digit,
    )


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by the authors' preset for 1000 epochs: LARS at 0.2 * batch / 256.

    The paper has the same numbers (section 3.3, appendix B).
    """
    common.imagenet(config)
    common.standardise(config, "imagenet")
    common.set_views(config, "byol", size=224)
    config.model.update(name="resnet50", zero_gamma=True)
    config.optim.update(
        name="lars", lr=0.2, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=1.5e-6, momentum=0.9, lr_in_momentum=False,
    )  # fmt: skip
    config.train.update(batch_size=4096, epochs=1000.0)


def imagenet_300(config: ConfigDict) -> None:
    """The authors' preset for 300 epochs. A shorter run needs a faster target."""
    imagenet(config)
    config.method.momentum = 0.99
    config.optim.update(lr=0.3, weight_decay=1e-6)
    config.train.epochs = 300.0


def imagenet_100(config: ConfigDict) -> None:
    """The authors' preset for 100 epochs: the preset for 300 epochs at a higher rate."""
    imagenet_300(config)
    config.optim.lr = 0.45
    config.train.epochs = 100.0


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 by solo-learn's byol.yaml. Their target is a copy, and their heads have biases."""
    common.solo_learn_cifar10(config, "solo_asymmetric")
    config.method.update(momentum=0.99, target_init="copy", last_bias=True)
    common.solo_learn_lars(config, lr=1.0, weight_decay=1e-5)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    common.set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.method.update(momentum=0.97, hidden_dim=256, output_dim=128)
    config.method.update(_SHORT_RUN)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def spoken_digit(config: ConfigDict) -> None:
    """Sound: two random windows of spoken digits, and the small encoder of `cpc_audio`."""
    common.spoken_digit_pairs(config)
    config.method.update(momentum=0.97, hidden_dim=256, output_dim=128)
    config.method.update(_SHORT_RUN)


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images; the target is fast, for short runs."""
    common.folder(config)
    common.standardise(config, "folder")
    common.set_views(config, "byol", size=96)
    config.method.update(momentum=0.99, hidden_dim=1024)
    config.method.update(_SHORT_RUN)
