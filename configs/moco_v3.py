"""MoCo v3 (Chen et al. 2021, arXiv 2104.02057).

    python -m ssl_jax.train --config=configs/moco_v3.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 4096, 300 epochs, by facebookresearch/moco-v3 CONFIG.md and the
              defaults of main_moco.py. Expected: 72.8 % linear top-1 (CONFIG.md). Not run here yet.
:imagenet_100, :imagenet_1000  ResNet-50, 100 and 1000 epochs. Expected: 68.9 % and 74.6 %
              (CONFIG.md). Not run here yet.
:imagenet_vit_small, :imagenet_vit_base  300 epochs, frozen patch embedding. Expected: 73.2 % and
              76.7 % (CONFIG.md). Not run here yet.
:cifar10      ResNet-18, batch 256, 1000 epochs, by solo-learn scripts/pretrain/cifar/mocov3.yaml.
              Expected: 93.10 % linear (solo-learn's README). Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 96 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.

"VARIANT,augment=simclr_cifar" uses the views of another recipe in `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "moco_v3",
    "temperature": 1.0,
    "momentum": 0.99,  # of the momentum encoder at the first step; rises to 1 by a cosine
    "head_depth": 2,  # layers of the projector; ViT: 3. The predictor has two.
    "predictor_norm": False,  # BatchNorm at the end of the predictor; ViT: True
    "hidden_dim": 4096,
    "output_dim": 256,
    "last_bias": False,
    "temperature_schedule": "constant",  # constant | cosine | log
    "temperature_end": 0.1,  # of the schedule "cosine"
    "temperature_periods": 0.5,  # of "cosine": 0.5 falls once from start to end
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(
        arg,
        METHOD,
        *(cifar10, cifar10_cpu, folder, imagenet, imagenet_100, imagenet_1000),
        *(imagenet_vit_small, imagenet_vit_base),
    )


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by the authors' CONFIG.md: LARS at 0.3 * batch / 256."""
    common.imagenet(config)
    common.standardise(config, "imagenet")
    common.set_views(config, "moco_v3", size=224)
    config.model.update(name="resnet50", zero_gamma=True)
    config.optim.update(
        name="lars", lr=0.3, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=1e-6, momentum=0.9, lr_in_momentum=False,
    )  # fmt: skip
    config.train.update(batch_size=4096, epochs=300.0)


def imagenet_100(config: ConfigDict) -> None:
    """The authors' recipe for 100 epochs, at twice the rate."""
    imagenet(config)
    config.optim.lr = 0.6
    config.train.epochs = 100.0


def imagenet_1000(config: ConfigDict) -> None:
    """The authors' recipe for 1000 epochs: slower momentum encoder, higher weight decay."""
    imagenet(config)
    config.method.momentum = 0.996
    config.optim.weight_decay = 1.5e-6
    config.train.epochs = 1000.0


def imagenet_vit_small(config: ConfigDict) -> None:
    """ViT-S with 12 heads by the authors' CONFIG.md. Smallest crop area: 0.08, as in BYOL."""
    common.imagenet(config)
    common.standardise(config, "imagenet")
    common.set_views(config, "moco_v3_vit", size=224)
    common.vit(config, "vit_small_moco")
    config.method.update(temperature=0.2, head_depth=3, predictor_norm=True)
    # AdamW ignores lr_in_momentum. Runs of earlier versions have this value.
    config.optim.update(
        name="adamw", lr=1.5e-4, lr_rule="linear", schedule="cosine", warmup_epochs=40.0,
        weight_decay=0.1, momentum=0.9, b2=0.999, lr_in_momentum=False, decay_all=True,
    )  # fmt: skip
    # Section 4.2: a patch embedding that never changes makes large batches stable.
    config.optim.frozen = ("encoder/patch_embed",)
    config.train.update(batch_size=4096, epochs=300.0)


def imagenet_vit_base(config: ConfigDict) -> None:
    """ViT-B with the recipe of ViT-S."""
    imagenet_vit_small(config)
    common.vit(config, "vit_base")


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 by solo-learn's mocov3.yaml, which has a lower temperature than the authors."""
    common.solo_learn_cifar10(config, "solo_asymmetric")
    config.method.temperature = 0.2
    common.solo_learn_lars(config, lr=0.3, weight_decay=1e-6)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    common.set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.method.update(temperature=0.2, hidden_dim=256, output_dim=128)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images."""
    common.folder(config)
    common.standardise(config, "folder")
    common.set_views(config, "moco_v3", size=96)
    config.method.update(temperature=0.2, hidden_dim=1024)
