"""VICReg (Bardes et al. 2021, arXiv 2105.04906), and its variants by argument.

    python -m ssl_jax.train --config=configs/vicreg.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 2048, 1000 epochs. Expected: 73.2 % linear top-1 (paper, table 1);
              not run here yet.
:cifar10      ResNet-18, batch 256, 1000 epochs. Expected: 92.1 % linear (solo-learn); not run
              here yet.
:cifar10_cpu  with --config.data.dir=DATA_DIR, where tensorflow-datasets has prepared cifar10: a
              small encoder for 2 CPU cores; a part of it is measured in docs/methods.md.

"VARIANT,augment=simclr_cifar" takes the views of another recipe of `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "vicreg",
    "sim": 25.0,
    "std": 25.0,
    "cov": 1.0,
    "hidden_dim": 8192,
    "output_dim": 8192,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """`arg`: a variant, and optionally other views: "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, imagenet)


def imagenet(config: ConfigDict) -> None:
    """LARS 0.2 x batch / 256: section 4.2."""
    common.imagenet(config)
    common.set_views(config, "byol")
    config.optim.update(lr=0.2, weight_decay=1e-6, lr_in_momentum=False)
    config.train.update(batch_size=2048, epochs=1000.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 with an expander of 2048."""
    common.cifar10(config)
    config.method.update(hidden_dim=2048, output_dim=2048)
    config.optim.update(lr=0.3, weight_decay=1e-4, lr_in_momentum=False)
    config.train.batch_size = 256


def cifar10_cpu(config: ConfigDict) -> None:
    """The small encoder that learns something real on 2 CPU cores."""
    common.cifar10_cpu(config)
    config.method.update(hidden_dim=256, output_dim=256)
