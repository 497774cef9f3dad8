"""MoCo v2 (Chen et al. 2020, arXiv 2003.04297), and its variants by argument.

    python -m ssl_jax.train --config=configs/moco_v2.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, 200 epochs of batch 256, statistics in 8 groups of 32 images. Expected:
              67.5 % linear top-1 (authors' repository), 71.1 after 800 epochs; not run here yet.
:cifar10      ResNet-18, batch 512, 1000 epochs. Expected: near the 92.9 % linear that solo-learn
              publishes for its symmetric variant; not run here yet.
:cifar10_cpu  with --config.data.dir=DATA_DIR, where tensorflow-datasets has prepared cifar10: a
              small encoder for 2 CPU cores; a part of it is measured in docs/methods.md.

"VARIANT,augment=byol" takes the views of another recipe of `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "moco",
    "temperature": 0.2,
    "momentum": 0.999,
    "queue_size": 65536,  # a multiple of train.batch_size
    "head_depth": 2,
    "hidden_dim": 0,  # the encoder's width: 2048 for ResNet-50
    "output_dim": 128,
    "shuffle_groups": 8,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """`arg`: a variant, and optionally other views: "cifar10", "imagenet,augment=byol"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, imagenet)


def imagenet(config: ConfigDict) -> None:
    """SGD at a fixed rate of 0.03 for batch 256, cosine: section 3 and the authors' repository."""
    common.imagenet(config)
    common.set_views(config, "moco_v2")
    config.model.update(bn_group=64, zero_gamma=False)  # 32 images in two views
    config.optim.update(name="sgd", lr=0.03, lr_rule="constant", weight_decay=1e-4)
    config.optim.warmup_epochs = 0.0
    config.train.update(batch_size=256, epochs=200.0)


def cifar10(config: ConfigDict) -> None:
    """A smaller queue and a faster momentum encoder, which short epochs want."""
    common.cifar10(config)
    config.model.update(bn_group=128, zero_gamma=False)  # 64 images: 8 groups of the batch
    config.method.update(temperature=0.1, momentum=0.99, queue_size=4096)
    config.optim.update(name="sgd", lr=0.06, lr_rule="constant", weight_decay=5e-4)


def cifar10_cpu(config: ConfigDict) -> None:
    """The small encoder that learns something real on 2 CPU cores."""
    common.cifar10_cpu(config)
    config.model.bn_group = 64  # 32 images: 4 groups of the batch
    config.method.update(momentum=0.99, queue_size=4096, hidden_dim=256, shuffle_groups=4)
