"""NPID, or instance discrimination by a memory bank (Wu et al. 2018, arXiv 1805.01978).

    python -m ssl_jax.train --config=configs/npid.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, 4096 noise samples, 200 epochs of batch 256. Expected: 54.0 % linear
              top-1 (paper, table 2); not run here yet. The paper's 46.5 % kNN is by the 128-wide
              embedding, ours by the encoder's features.
:cifar10      ResNet-18, full softmax, 200 epochs of batch 128, by the authors' code
              (zhirongw/lemniscate.pytorch, cifar.py). Expected: about 80 % kNN (paper, table 1,
              by the embedding); not run here yet.
:cifar10_cpu  with --config.data.dir=DATA_DIR, where tensorflow-datasets has prepared cifar10: a
              small encoder for 2 CPU cores; a part of it is measured in docs/methods.md.

"VARIANT,augment=moco_v2" takes the views of another recipe of `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "npid",
    "loss": "nce",  # nce | softmax
    "temperature": 0.07,
    "momentum": 0.5,
    "noise_samples": 4096,  # nce only
    "proximal": 0.0,  # as in the authors' code
    "output_dim": 128,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """`arg`: a variant, and optionally other views: "cifar10", "imagenet,augment=moco_v2"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, imagenet)


def imagenet(config: ConfigDict) -> None:
    """SGD at 0.03 for batch 256, a tenth from epochs 120 and 160 on: the authors' main.py."""
    common.imagenet(config)
    common.set_views(config, "moco_v1")  # which MoCo took from here
    config.augment.views = 1
    config.model.zero_gamma = False
    config.optim.update(name="sgd", lr=0.03, lr_rule="constant", weight_decay=1e-4)
    config.optim.update(schedule="step", drops=(0.6, 0.8), warmup_epochs=0.0)
    config.train.update(batch_size=256, epochs=200.0)


def cifar10(config: ConfigDict) -> None:
    """All 50,000 rows are few enough for the softmax itself; the authors do not flip."""
    common.cifar10(config)
    common.set_views(config, "moco_v1", size=32, flip=0.0)
    config.augment.views = 1
    config.model.zero_gamma = False
    config.method.update(loss="softmax", temperature=0.1)
    config.optim.update(name="sgd", lr=0.03, lr_rule="constant", weight_decay=5e-4)
    config.optim.update(schedule="step", drops=(0.6, 0.8), warmup_epochs=0.0)
    config.train.update(batch_size=128, epochs=200.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Twice the steps of the methods with two views: a row has to be met again to teach."""
    common.cifar10_cpu(config)
    config.augment.views = 1
    config.method.update(loss="softmax", temperature=0.1)
    config.optim.lr = 1e-3  # 5e-3 collapsed small encoders within their first epochs
    config.train.steps = 2200
