"""Restricted Boltzmann machines by contrastive divergence, stacked into a deep belief network.

    python -m ssl_jax.train --config=configs/rbm.py:VARIANT --workdir=runs/NAME

Hinton 2002, Hinton, Osindero and Teh 2006; persistent chains: Tieleman 2008.

:digits       scikit-learn's digits, Bernoulli pixels, CD-1. Expected: 91.4 %
              linear from 10 labels per class (raw pixels 88.9), 96.4 % kNN (98.2). One minute.
:cifar10_cpu  with --config.data.dir=DATA_DIR, where tensorflow-datasets has prepared cifar10:
              Gaussian pixels, CD-1; a part of it is measured in docs/methods.md.
:cifar10      two machines of 4096 units over 32x32 pixels; no published figure for whole images
              without whitening; not run here yet.
:imagenet     the same over 64x64 pixels: no recipe exists, for comparison only; not run here yet.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "rbm",
    "gibbs_steps": 1,
    "persistent": False,
}


def get_config(arg: str = "cifar10") -> ConfigDict:
    """`arg`: a variant, and optionally other views: "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, digits, cifar10, cifar10_cpu, imagenet)


def digits(config: ConfigDict) -> None:
    """8x8 pixels of grey as they are: no crop, no flip."""
    _views(config, size=8, crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0.0)
    config.data.source = "digits"
    _network(config, widths=(256, 256), visible="bernoulli")
    _sgd(config, lr=0.05)
    config.train.update(batch_size=128, epochs=120.0, log_every=10, checkpoint_every=200)
    config.eval.update(labels_per_class=(10,), draws=10, knn_k=20)


def cifar10(config: ConfigDict) -> None:
    """Two machines of 4096 units."""
    common.cifar10(config)
    _views(config, size=32)
    _network(config, widths=(4096, 4096))
    _sgd(config, lr=0.005)
    config.train.update(batch_size=128, epochs=200.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Two small machines for 2 CPU cores."""
    common.cifar10_cpu(config)
    _views(config, size=24)
    _network(config, widths=(512, 512))
    _sgd(config, lr=0.005)


def imagenet(config: ConfigDict) -> None:
    """As on CIFAR-10, over small images."""
    common.imagenet(config)
    _views(config, size=64)
    _network(config, widths=(8192, 8192))
    _sgd(config, lr=0.005)
    config.train.update(batch_size=1024, epochs=20.0)


def _views(config: ConfigDict, **overrides: object) -> None:
    """One view and mild crops: units with a place of their own learn nothing that moves."""
    common.set_views(config, "crop_flip", **{"crop_area": (0.8, 1.0)} | overrides)
    config.augment.views = 1


def _network(config: ConfigDict, **fields: object) -> None:
    kept = {field: config.model[field] for field in ("bn_group", "dtype", "init")}
    config.model = {"name": "dbn", "visible": "gaussian", "sigma": 1.0, **fields, **kept}


def _sgd(config: ConfigDict, lr: float) -> None:
    """Not Adam, whose small even steps leave it to the hidden units to learn the mean image; and
    one rate throughout, for machines that learn in turn."""
    config.optim.update(name="sgd", lr=lr, lr_rule="constant", weight_decay=1e-4)
    config.optim.schedule = "constant"
    config.optim.warmup_epochs = 0.0
