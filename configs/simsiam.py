"""SimSiam (Chen and He 2020, arXiv 2011.10566), and its variants by argument.

    python -m ssl_jax.train --config=configs/simsiam.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 512, 100 epochs. Expected: 68.1 % linear top-1 (paper, table 4);
              not run here yet.
:cifar10      ResNet-18, batch 512, 800 epochs. Expected: 91.8 % linear (paper, appendix D); not
              run here yet.
:cifar10_cpu  with --config.data.dir=DATA_DIR, where tensorflow-datasets has prepared cifar10: a
              small encoder for 2 CPU cores; a part of it is measured in docs/methods.md.

"VARIANT,augment=simclr_cifar" takes the views of another recipe of `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "simsiam",
    "hidden_dim": 0,  # the encoder's width: 2048 for ResNet-50
    "bottleneck_dim": 512,
    "output_dim": 2048,
    "head_depth": 3,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """`arg`: a variant, and optionally other views: "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, imagenet)


def imagenet(config: ConfigDict) -> None:
    """SGD 0.05 x batch / 256, cosine, but a constant rate for the predictor: section 3."""
    common.imagenet(config)
    common.set_views(config, "moco_v2")
    config.optim.update(name="sgd", lr=0.05, weight_decay=1e-4, warmup_epochs=0.0)
    config.optim.groups = {"predictor": {"schedule": "constant"}}
    config.train.update(batch_size=512, epochs=100.0)


def cifar10(config: ConfigDict) -> None:
    """Appendix D: a projector of two layers, base rate 0.03, decay 5e-4."""
    common.cifar10(config)
    config.method.head_depth = 2
    config.optim.update(name="sgd", lr=0.03, lr_rule="linear", weight_decay=5e-4)
    config.optim.warmup_epochs = 0.0
    config.train.epochs = 800.0


def cifar10_cpu(config: ConfigDict) -> None:
    """The small encoder that learns something real on 2 CPU cores."""
    common.cifar10_cpu(config)
    config.method.update(hidden_dim=256, bottleneck_dim=64, output_dim=256, head_depth=2)
