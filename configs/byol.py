"""BYOL (Grill et al. 2020, arXiv 2006.07733), and its variants by argument.

    python -m ssl_jax.train --config=configs/byol.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 4096, 1000 epochs. Expected: 74.3 % linear top-1 (paper, table 1);
              not run here yet. :imagenet_300: 72.5; :imagenet_100.
:cifar10      ResNet-18, batch 256, 1000 epochs. Expected: 92.6 % linear (solo-learn); not run
              here yet.
:cifar10_cpu  with --config.data.dir=DATA_DIR, where tensorflow-datasets has prepared cifar10: a
              small encoder for 2 CPU cores; a part of it is measured in docs/methods.md.

"VARIANT,augment=simclr_cifar" takes the views of another recipe of `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "byol",
    "momentum": 0.996,
    "hidden_dim": 4096,
    "output_dim": 256,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """`arg`: a variant, and optionally other views: "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, imagenet, imagenet_300, imagenet_100)


def imagenet(config: ConfigDict) -> None:
    """The paper's section 3.3 and appendix B; the rate comes after the momentum buffer."""
    common.imagenet(config)
    common.set_views(config, "byol")
    config.optim.update(lr=0.2, weight_decay=1.5e-6, lr_in_momentum=False)
    config.train.update(batch_size=4096, epochs=1000.0)


def imagenet_300(config: ConfigDict) -> None:
    """Shorter runs want a faster target: the authors' presets."""
    imagenet(config)
    config.method.momentum = 0.99
    config.optim.update(lr=0.3, weight_decay=1e-6)
    config.train.epochs = 300.0


def imagenet_100(config: ConfigDict) -> None:
    """As 300 epochs, at a higher rate."""
    imagenet_300(config)
    config.optim.lr = 0.45
    config.train.epochs = 100.0


def cifar10(config: ConfigDict) -> None:
    """After solo-learn's recipe: LARS 1.0 at batch 256."""
    common.cifar10(config)
    config.method.momentum = 0.99
    config.optim.update(lr=1.0, weight_decay=1e-5, lr_in_momentum=False)
    config.train.batch_size = 256


def cifar10_cpu(config: ConfigDict) -> None:
    """The small encoder that learns something real on 2 CPU cores."""
    common.cifar10_cpu(config)
    config.method.update(momentum=0.97, hidden_dim=256, output_dim=128)
