"""SimCLR v2 (Chen et al. 2020, arXiv 2006.10029), and its variants by argument.

    python -m ssl_jax.train --config=configs/simclr_v2.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, 3-layer head, batch 4096, 800 epochs. Expected: 71.7 % linear top-1
              (authors' repository); not run here yet.
:imagenet_sk  ResNet-152, three times as wide, with selective kernels. Expected: 79.8 %; not run
              here yet.
:cifar10      ResNet-18, batch 512, 1000 epochs; no published figure; not run here yet.
:cifar10_cpu  with --config.data.dir=DATA_DIR, where tensorflow-datasets has prepared cifar10: a
              small encoder for 2 CPU cores; a part of it is measured in docs/methods.md.

"VARIANT,augment=simclr_cifar" takes the views of another recipe of `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "simclr_v2",
    "temperature": 0.1,
    "head_depth": 3,
    "hidden_dim": 0,  # the encoder's width: 2048 for ResNet-50
    "output_dim": 128,
    "memory_size": 0,  # images; 65536 for the paper's memory
    "memory_momentum": 0.999,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """`arg`: a variant, and optionally other views: "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, imagenet, imagenet_sk)


def imagenet(config: ConfigDict) -> None:
    """LARS at 0.1 sqrt(batch) (6.4 at 4096), decay 1e-4, warm-up of 5 % : appendix B."""
    common.imagenet(config)
    common.set_views(config, "simclr_imagenet")
    config.optim.update(lr=0.1, lr_rule="sqrt", weight_decay=1e-4, warmup_epochs=40.0)
    config.train.update(batch_size=4096, epochs=800.0)


def imagenet_sk(config: ConfigDict) -> None:
    """The largest model of the paper: ResNet-152, 3x, selective kernels."""
    imagenet(config)
    config.model.update(name="resnet152", width=3.0, sk_ratio=0.0625)


def cifar10(config: ConfigDict) -> None:
    """As SimCLR on CIFAR-10, with the deeper head."""
    common.cifar10(config)
    config.method.update(temperature=0.5)
    config.optim.update(lr=1.0, weight_decay=1e-4)


def cifar10_cpu(config: ConfigDict) -> None:
    """The small encoder that learns something real on 2 CPU cores, with a memory."""
    common.cifar10_cpu(config)
    config.method.update(temperature=0.2, hidden_dim=256, memory_size=1024)
    config.method.memory_momentum = 0.99
