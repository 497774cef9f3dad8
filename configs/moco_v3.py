"""MoCo v3 (Chen et al. 2021, arXiv 2104.02057), and its variants by argument.

    python -m ssl_jax.train --config=configs/moco_v3.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 4096, 300 epochs. Expected: 72.8 % linear top-1 (authors'
              repository); not run here yet. :imagenet_100: 68.9; :imagenet_1000: 74.6.
:imagenet_vit_small, :imagenet_vit_base  300 epochs, frozen patch embedding. Expected: 73.2 and
              76.7; not run here yet.
:cifar10      ResNet-18, batch 256, 1000 epochs. Expected: 93.1 % linear (solo-learn); not run
              here yet.
:cifar10_cpu  with --config.data.dir=DATA_DIR, where tensorflow-datasets has prepared cifar10: a
              small encoder for 2 CPU cores; a part of it is measured in docs/methods.md.

"VARIANT,augment=simclr_cifar" takes the views of another recipe of `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "moco_v3",
    "temperature": 1.0,
    "momentum": 0.99,
    "head_depth": 2,
    "predictor_norm": False,  # ViT: True
    "hidden_dim": 4096,
    "output_dim": 256,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """`arg`: a variant, and optionally other views: "cifar10,augment=simclr_cifar"."""
    return common.select(
        arg,
        METHOD,
        *(cifar10, cifar10_cpu, imagenet, imagenet_100, imagenet_1000),
        *(imagenet_vit_small, imagenet_vit_base),
    )


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by the authors' CONFIG.md: LARS 0.3 x batch / 256."""
    common.imagenet(config)
    common.set_views(config, "moco_v3")
    config.optim.update(lr=0.3, weight_decay=1e-6, lr_in_momentum=False)
    config.train.update(batch_size=4096, epochs=300.0)


def imagenet_100(config: ConfigDict) -> None:
    """100 epochs want twice the rate."""
    imagenet(config)
    config.optim.lr = 0.6
    config.train.epochs = 100.0


def imagenet_1000(config: ConfigDict) -> None:
    """1000 epochs want a slower momentum encoder and more decay."""
    imagenet(config)
    config.method.momentum = 0.996
    config.optim.weight_decay = 1.5e-6
    config.train.epochs = 1000.0


def imagenet_vit_small(config: ConfigDict) -> None:
    """ViT-S with 12 heads by the authors' CONFIG.md; crops from 0.08, as BYOL's."""
    imagenet(config)
    common.set_views(config, "byol")
    common.vit(config, "vit_small_moco")
    config.method.update(temperature=0.2, head_depth=3, predictor_norm=True)
    config.optim.update(name="adamw", lr=1.5e-4, weight_decay=0.1, warmup_epochs=40.0)
    # Section 4.2: a patch embedding that never changes makes large batches stable.
    config.optim.frozen = ("encoder/patch_embed",)


def imagenet_vit_base(config: ConfigDict) -> None:
    """As ViT-S."""
    imagenet_vit_small(config)
    common.vit(config, "vit_base")


def cifar10(config: ConfigDict) -> None:
    """After solo-learn's recipe: LARS 0.3 at batch 256, temperature 0.2."""
    common.cifar10(config)
    config.method.temperature = 0.2
    config.optim.update(lr=0.3, weight_decay=1e-6, lr_in_momentum=False)
    config.train.batch_size = 256


def cifar10_cpu(config: ConfigDict) -> None:
    """The small encoder that learns something real on 2 CPU cores."""
    common.cifar10_cpu(config)
    config.method.update(temperature=0.2, hidden_dim=256, output_dim=128)
