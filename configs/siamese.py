"""Siamese networks by margin (Hadsell 2006) or triplets (arXiv 1503.03832), and variants.

    python -m ssl_jax.train --config=configs/siamese.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 512, 100 epochs. Both papers learn from labelled or known pairs:
              there is no published figure for two views; not run here yet.
:cifar10      ResNet-18, batch 512, 1000 epochs; likewise.
:cifar10_cpu  with --config.data.dir=DATA_DIR, where tensorflow-datasets has prepared cifar10: a
              small encoder for 2 CPU cores; a part of it is measured in docs/methods.md.

"VARIANT,augment=simclr_cifar" takes the views of another recipe of `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "siamese",
    "loss": "triplet",  # or margin
    "margin": 0.2,
    "mining": "semi_hard",  # of triplets: semi_hard, batch_hard, all
    "hidden_dim": 0,  # the encoder's width
    "output_dim": 128,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """`arg`: a variant, and optionally other views: "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, imagenet)


def imagenet(config: ConfigDict) -> None:
    """SimCLR's views; embeddings of 128, margin 0.2 and semi-hard mining as FaceNet."""
    common.imagenet(config)
    common.set_views(config, "simclr_imagenet")
    config.optim.update(name="sgd", lr=0.05, weight_decay=1e-4)
    config.train.update(batch_size=512, epochs=100.0)


def cifar10(config: ConfigDict) -> None:
    """As ImageNet."""
    common.cifar10(config)
    config.optim.update(name="sgd", lr=0.03, lr_rule="constant", weight_decay=5e-4)


def cifar10_cpu(config: ConfigDict) -> None:
    """The small encoder that learns something real on 2 CPU cores."""
    common.cifar10_cpu(config)
    config.method.update(hidden_dim=256)
