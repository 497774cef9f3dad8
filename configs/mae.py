"""MAE (He et al. 2021, arXiv 2111.06377).

    python -m ssl_jax.train --config=configs/mae.py:VARIANT --workdir=runs/NAME

:imagenet     ViT-B/16, batch 4096, 1600 epochs, by appendix A.1 of the paper and
              facebookresearch/mae PRETRAIN.md. Expected: 68.0 % linear top-1, 83.6 % fine-tuned
              (paper, tables 11 and 3). Not run here yet.
:cifar10      ViT-S/4, batch 256, 1000 epochs, by solo-learn scripts/pretrain/cifar/mae.yaml. Its
              README has no number. Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ViT-Ti/16, views of 128 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "mae",
    "mask_ratio": 0.75,  # fraction of the patches that are hidden
    "normalize_pixels": True,  # targets are standardised per patch
    "decoder_dim": 512,
    "decoder_depth": 8,
    "decoder_heads": 16,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ViT-B/16 by appendix A.1, table 8: AdamW at 1.5e-4 * batch / 256."""
    common.imagenet(config)
    common.standardise(config, "imagenet")
    common.set_views(config, "crop_flip", size=224, crop_area=(0.2, 1.0))
    config.augment.views = 1
    common.vit(config, "vit_base")
    config.optim.update(
        name="adamw", lr=1.5e-4, lr_rule="linear", schedule="cosine", warmup_epochs=40.0,
        weight_decay=0.05, momentum=0.9, b2=0.95,
    )  # fmt: skip
    config.train.update(batch_size=4096, epochs=1600.0)


def cifar10(config: ConfigDict) -> None:
    """ViT-S with 12 heads on patches of 4x4 pixels, by solo-learn's mae.yaml."""
    common.solo_learn_cifar10(config, "crop_flip")
    config.augment.views = 1
    common.vit(config, "vit_small_moco", patch_size=4)
    config.optim.update(
        name="adamw", lr=2e-4, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=0.05, momentum=0.9, b2=0.95, decay_all=True,
    )  # fmt: skip


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains a ViT of width 64 on 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    common.set_views(config, "crop_flip", size=24, crop_area=(0.2, 1.0))
    config.augment.views = 1
    common.vit(config, "vit_micro", patch_size=4)
    config.model.pool = "mean"
    config.method.update(decoder_dim=32, decoder_depth=1, decoder_heads=4)
    config.optim.update(
        name="adamw", lr=2e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=0.05, momentum=0.9, b2=0.95,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ViT-Ti/16 on a folder of your own images."""
    common.folder(config)
    common.standardise(config, "folder")
    common.set_views(config, "crop_flip", size=128, crop_area=(0.2, 1.0))
    config.augment.views = 1
    common.vit(config, "vit_tiny")
    config.method.update(decoder_dim=128, decoder_depth=4, decoder_heads=4)
    config.optim.update(lr=3e-5, weight_decay=0.05, b2=0.95)
