"""CSSL: pseudo-labels from a density that adversaries refine.

    python -m ssl_jax.train --config=configs/cssl.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 512, 100 epochs. No paper describes the whole method: no recipe and
              no number are published, and the hyperparameters are this project's choice. Not run
              here yet.
:cifar10      ResNet-18, batch 512, 1000 epochs, this project's choice, too. Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 96 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.

"VARIANT,augment=simclr_cifar" uses the views of another recipe in `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common
from ssl_jax.field import AUTO

METHOD = {
    "name": "cssl",
    "components": 128,  # of the mixture of Gaussians
    "em_power": 0.6,  # step t moves the mixture by (t + 1 + em_offset) ** -em_power
    "em_offset": 10.0,
    "variance_floor": 0.1,  # of a component
    "min_share": 0.1,  # a component with less of an equal share restarts
    "momentum": 0.99,  # of the network that makes the first embedding; 1: constant
    "fool_weight": 0.2,
    "trust": 0.1,  # probability that images of one component are the same
    "temperature": 0.1,  # of the decision "same or different"
    "threshold": 0.5,  # of that decision
    "distance_weight": 0.01,
    "reconstruction_weight": 1.0,
    "dropout": 0.1,  # in the discriminator
    "code_dim": 16,
    "hidden_dim": 256,
    "decoder_width": 64,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 with SimCLR's views. A batch of 512 images can tell 256 components apart."""
    common.imagenet(config)
    common.set_views(config, "simclr_imagenet", size=224)
    config.model.update(name="resnet50", zero_gamma=True)
    config.method.update(components=256, code_dim=64, hidden_dim=1024)
    _adam(config, lr=1e-3, warmup_epochs=10.0)
    config.train.update(batch_size=512, epochs=100.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 with fewer components."""
    common.cifar10(config)
    common.set_views(config, "simclr_cifar", size=32)
    config.model.update(name="resnet18", stem="cifar", zero_gamma=True)
    _adam(config, lr=1e-3, warmup_epochs=10.0)
    config.train.update(batch_size=512, epochs=1000.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.method.update(decoder_width=16)
    _adam(config, lr=5e-3, warmup_epochs=0.2)
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images. A batch has two images per component."""
    common.folder(config)
    config.method.components = AUTO
    config.optim.groups = {"discriminator": {"lr": 0.16 * config.optim.lr, "momentum": 0.5}}


def _adam(config: ConfigDict, *, lr: float, warmup_epochs: float) -> None:
    """Sets AdamW, slower for the discriminator and with b1 0.5 as in DCGAN (arXiv 1511.06434)."""
    config.optim.update(
        name="adamw", lr=lr, lr_rule="constant", schedule="cosine", warmup_epochs=warmup_epochs,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.optim.groups = {"discriminator": {"lr": 0.16 * lr, "momentum": 0.5}}
