"""SwAV (Caron et al. 2020, arXiv 2006.09882), and its variants by argument.

    python -m ssl_jax.train --config=configs/swav.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 4096, 2 views of 224 and 6 of 96 pixels, 800 epochs. Expected:
              75.3 % linear top-1 (paper, table 1); not run here yet.
:cifar10      ResNet-18, batch 256, a queue of 3840, 1000 epochs. Expected: 89.2 % linear
              (solo-learn); not run here yet.
:cifar10_cpu  with --config.data.dir=DATA_DIR, where tensorflow-datasets has prepared cifar10: a
              small encoder for 2 CPU cores; a part of it is measured in docs/methods.md.

"VARIANT,augment=simclr_cifar" takes the views of another recipe of `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "swav",
    "prototypes": 3000,
    "temperature": 0.1,
    "epsilon": 0.05,
    "iterations": 3,
    "freeze_epochs": 1.0,
    "queue_size": 0,  # a multiple of train.batch_size
    "queue_epoch": 15.0,
    "hidden_dim": 2048,
    "output_dim": 128,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """`arg`: a variant, and optionally other views: "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, imagenet)


def imagenet(config: ConfigDict) -> None:
    """Section 4.1 and the authors' 800-epoch script: LARS 4.8 at batch 4096. There the rate warms
    up from 0.3 and ends at 0.0048; here both are 0."""
    common.imagenet(config)
    common.set_views(config, "simclr_imagenet", crop_area=(0.14, 1.0))
    config.augment.local = {"views": 6, "size": 96, "crop_area": (0.05, 0.14)}
    config.model.zero_gamma = False
    config.optim.update(lr=0.3, weight_decay=1e-6, lr_in_momentum=False)
    config.train.update(batch_size=4096, epochs=800.0)


def cifar10(config: ConfigDict) -> None:
    """Two views, fewer prototypes, and a queue because the batch is small."""
    common.cifar10(config)
    config.method.update(prototypes=100, queue_size=3840)
    config.optim.update(lr=0.6, weight_decay=1e-6, lr_in_momentum=False)
    config.train.batch_size = 256


def cifar10_cpu(config: ConfigDict) -> None:
    """The small encoder that learns something real on 2 CPU cores, with two small crops."""
    common.cifar10_cpu(config)
    config.augment.local = {"views": 2, "size": 16, "crop_area": (0.1, 0.4)}
    # No queue: a batch of 128 has two images a prototype, and the old embeddings cost 2.5 points.
    config.method.update(prototypes=64, freeze_epochs=0.1)
    config.method.update(hidden_dim=256)
