"""Variational autoencoder (Kingma and Welling, arXiv 1312.6114).

    python -m ssl_jax.train --config=configs/vae.py:VARIANT --workdir=runs/NAME

The paper trains small dense networks on digits and on grey faces. No recipe is published for colour
images of natural scenes. The likelihood, the ResNet and its decoder, and all numbers are this
project's choice.

:imagenet     ResNet-50 on 64x64 pixels, batch 512, 100 epochs, for comparison only. Not run here
              yet.
:cifar10      ResNet-18, batch 256, 200 epochs. Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 96 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.

Reconstruct the features of a trained network instead of pixels by
--config.method.features_from=RUN, any run, export or weights file that `ssl_jax.load_backbone`
reads.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "vae",
    "latent_dim": 128,
    "likelihood": "gaussian",  # or "bernoulli"
    "sigma": 0.1,  # standard deviation of a Gaussian pixel in [0, 1]
    "beta": 1.0,  # weight of the divergence from the prior
    "free_nats": 0.0,  # divergence that a group of latent dimensions may have at no cost
    "free_group": 1,  # latent dimensions per group
    "features_from": "",  # a trained network, whose features are reconstructed
    "decoder_width": 64,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 on images of 64x64 pixels."""
    common.imagenet(config)
    common.standardise(config, "imagenet")
    _views(config, size=64)
    config.model.update(name="resnet50", zero_gamma=True)
    config.method.latent_dim = 256
    _adam(config, lr=1e-3, warmup_epochs=5.0)
    config.train.update(batch_size=512, epochs=100.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18."""
    common.cifar10(config)
    common.standardise(config, "cifar10")
    _views(config, size=32)
    config.model.update(name="resnet18", stem="cifar", zero_gamma=True)
    _adam(config, lr=1e-3, warmup_epochs=5.0)
    config.train.update(batch_size=256, epochs=200.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    _views(config, size=24)
    config.method.update(latent_dim=64, decoder_width=16)
    _adam(config, lr=5e-3, warmup_epochs=0.2)
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images."""
    common.folder(config)
    common.standardise(config, "folder")
    _views(config, size=96)


def _views(config: ConfigDict, *, size: int) -> None:
    """Sets one view: a crop, flipped half of the time."""
    common.set_views(config, "crop_flip", size=size, crop_area=(0.2, 1.0))
    config.augment.views = 1


def _adam(config: ConfigDict, *, lr: float, warmup_epochs: float) -> None:
    config.optim.update(
        name="adamw", lr=lr, lr_rule="constant", schedule="cosine", warmup_epochs=warmup_epochs,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
