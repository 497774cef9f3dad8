"""Restricted Boltzmann machines by contrastive divergence, stacked into a deep belief network.

    python -m ssl_jax.train --config=configs/rbm.py:VARIANT --workdir=runs/NAME

Sources: Hinton 2002; Hinton, Osindero and Teh 2006; persistent chains: Tieleman 2008.

:digits       scikit-learn's digits, Bernoulli pixels, CD-1. Expected: 91.4 % linear from 10 labels
              per class (raw pixels 88.9 %), 96.4 % kNN (raw pixels 98.2 %). Takes one minute.
:folder       Your own images: pass --config.data.dir=IMAGES. Two machines of 1024 units on 32x32
              pixels; batch and epochs follow from the number of images.
:cifar10_cpu  Gaussian pixels, CD-1. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.
:cifar10      Two machines of 4096 units on 32x32 pixels. No number is published for whole images
              without whitening: the hyperparameters are this project's choice. Not run here yet.
:imagenet     Two machines of 8192 units on 64x64 pixels, for comparison only: no recipe is
              published. Not run here yet.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "rbm",
    "gibbs_steps": 1,  # k of CD-k
    "persistent": False,  # True: chains continue instead of restarting from the data
}


def get_config(arg: str = "cifar10") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, digits, cifar10, cifar10_cpu, folder, imagenet)


def digits(config: ConfigDict) -> None:
    """Grey images of 8x8 pixels, neither cropped nor flipped."""
    _views(config, size=8, crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0.0)
    config.data.source = "digits"
    _network(config, widths=(256, 256), visible="bernoulli")
    _sgd(config, lr=0.05)
    config.train.update(batch_size=128, epochs=120.0, log_every=10, checkpoint_every=200)
    config.eval.update(labels_per_class=(10,), draws=10, knn_k=20)


def cifar10(config: ConfigDict) -> None:
    """Two machines of 4096 hidden units."""
    common.cifar10(config)
    _views(config, size=32, crop_area=(0.8, 1.0))
    _network(config, widths=(4096, 4096), visible="gaussian")
    _sgd(config, lr=0.005)
    config.train.update(batch_size=128, epochs=200.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Two small machines for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    _views(config, size=24, crop_area=(0.8, 1.0))
    _network(config, widths=(512, 512), visible="gaussian")
    _sgd(config, lr=0.005)
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """Two machines of 1024 hidden units on your own images, in 32x32 pixels."""
    common.folder(config)
    _views(config, size=32, crop_area=(0.8, 1.0))
    _network(config, widths=(1024, 1024), visible="gaussian")
    _sgd(config, lr=0.005)


def imagenet(config: ConfigDict) -> None:
    """The CIFAR-10 recipe with larger machines on images of 64x64 pixels."""
    common.imagenet(config)
    _views(config, size=64, crop_area=(0.8, 1.0))
    _network(config, widths=(8192, 8192), visible="gaussian")
    _sgd(config, lr=0.005)
    config.train.update(batch_size=1024, epochs=20.0)


def _views(config: ConfigDict, **overrides: object) -> None:
    """Sets one view, with mild crops: each unit sees fixed pixels and cannot follow motion."""
    common.set_views(config, "crop_flip", **overrides)
    config.augment.views = 1


def _network(config: ConfigDict, *, widths: tuple[int, ...], visible: str) -> None:
    """Replaces the ResNet by a deep belief network."""
    shared = {field: config.model[field] for field in ("bn_group", "dtype", "init")}
    config.model = {"name": "dbn", "visible": visible, "sigma": 1.0, "widths": widths, **shared}


def _sgd(config: ConfigDict, *, lr: float) -> None:
    """Sets SGD at one rate throughout, because the machines learn in turn.

    Adam takes small steps of equal size, so that the hidden units have to learn the mean image.
    """
    config.optim.update(
        name="sgd", lr=lr, lr_rule="constant", schedule="constant", warmup_epochs=0.0,
        weight_decay=1e-4, momentum=0.9,
    )  # fmt: skip
