"""CSSL, pseudo-labels from a density that adversaries refine, and its variants by argument.

    python -m ssl_jax.train --config=configs/cssl.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 512, 100 epochs. There is no paper of the whole and no published
              figure; not run here yet.
:cifar10      ResNet-18, batch 512, 1000 epochs; likewise.
:cifar10_cpu  with --config.data.dir=DATA_DIR, where tensorflow-datasets has prepared cifar10: a
              small encoder for 2 CPU cores; a part of it is measured in docs/methods.md.

"VARIANT,augment=simclr_cifar" takes the views of another recipe of `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "cssl",
    "components": 128,
    "em_power": 0.6,
    "em_offset": 10.0,
    "variance_floor": 0.1,
    "min_share": 0.1,
    "momentum": 0.99,  # of the first embedding; 1: it never moves
    "fool_weight": 0.2,
    "trust": 0.1,  # of pseudo-labels
    "temperature": 0.1,
    "threshold": 0.5,
    "distance_weight": 0.01,
    "reconstruction_weight": 1.0,
    "dropout": 0.1,
    "code_dim": 16,
    "hidden_dim": 256,
    "decoder_width": 64,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """`arg`: a variant, and optionally other views: "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, imagenet)


def imagenet(config: ConfigDict) -> None:
    """SimCLR's views; as many components as a batch of 512 can tell apart."""
    common.imagenet(config)
    common.set_views(config, "simclr_imagenet")
    config.method.update(components=256, code_dim=64, hidden_dim=1024)
    _adam(config, lr=1e-3)
    config.train.update(batch_size=512, epochs=100.0)


def cifar10(config: ConfigDict) -> None:
    """As ImageNet, with fewer components."""
    common.cifar10(config)
    _adam(config, lr=1e-3)


def cifar10_cpu(config: ConfigDict) -> None:
    """The small encoder that learns something real on 2 CPU cores."""
    common.cifar10_cpu(config)
    config.method.update(decoder_width=16)
    _adam(config, lr=5e-3)


def _adam(config: ConfigDict, lr: float) -> None:
    """Adam; slower for the discriminator, and with b1 0.5 as in DCGAN (arXiv 1511.06434)."""
    config.optim.update(name="adamw", lr=lr, lr_rule="constant", weight_decay=1e-4)
    config.optim.groups = {"discriminator": {"lr": 0.16 * lr, "momentum": 0.5}}
