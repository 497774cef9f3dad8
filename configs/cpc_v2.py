"""CPC v2 (Hénaff et al. 2020, arXiv 1905.09272).

    python -m ssl_jax.train --config=configs/cpc_v2.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-161 with layer normalisation, crops of 260 pixels in 6x6 patches of 80, four
              directions, batch 512, 200 epochs. Expected: 71.5 % linear top-1 (paper, table 1).
              Not run here yet. Differences: a ResNet of version 1 with width 2, whose last stage
              has 2048 channels, not 4096; Inception's colour changes, grey and colour dropping per
              patch, without the paper's AutoAugment operations, elastic deformation and shearing;
              no average of the weights over steps.
:cifar10      ResNet-18, crops of 30 pixels in 5x5 patches of 10, batch 16, 500 epochs, by
              rschwarz15/CPCV2-PyTorch README.md and argparser (a reimplementation; it has a
              WideResNet-28-2). Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. Views of 128 pixels in 7x7 patches of
              32, ResNet-18; batch, epochs and warm-up follow from the number of images.
              docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "cpc",
    "directions": 4,  # down, up, right, left
    "first_step": 3,  # the nearest row that does not overlap the context's row
    "steps": 1,
    "target_dim": 64,
    "scale": 0.1,
    "context_dim": 256,
    "context_depth": 5,
    "patch_crop": 0,
    "patch_jitter": 0.8,  # probability of other colours
    "patch_grayscale": 0.25,
    "patch_color_drop": 0.5,  # the paper does not state its probability
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant by its name."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-161 by the paper's appendix: Adam at 4e-4 with b1 0.8, gradients up to norm 0.01."""
    common.imagenet(config)
    common.standardise(config, "imagenet")
    common.set_views(
        config, "crop_flip", size=260, crop_area=((260 / 300) ** 2,) * 2, crop_aspect=(1.0, 1.0)
    )
    config.augment.views = 1
    config.eval.crop = 260 / 300
    config.model.update(
        name="resnet161", width=2.0, stem="imagenet", norm="layer", patch=80, patch_stride=36
    )
    config.optim.update(
        name="adamw", lr=4e-4, lr_rule="constant", schedule="constant", warmup_epochs=0.0,
        weight_decay=0.0, momentum=0.8, b2=0.999, clip_norm=0.01,
    )  # fmt: skip
    config.train.update(batch_size=512, epochs=200.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 with layer normalisation. The source draws 16 negatives per prediction, not all."""
    common.cifar10(config)
    common.standardise(config, "cifar10")
    common.set_views(
        config, "crop_flip", size=30, crop_area=((30 / 32) ** 2,) * 2, crop_aspect=(1.0, 1.0)
    )
    config.augment.views = 1
    config.model.update(name="resnet18", stem="cifar", norm="layer", patch=10, patch_stride=5)
    config.method.update(first_step=2, steps=3, target_dim=0, scale=1.0)
    config.optim.update(
        name="adamw", lr=2e-4, lr_rule="constant", schedule="constant", warmup_epochs=0.0,
        weight_decay=0.0, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.update(batch_size=16, epochs=500.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains a small ResNet on 4x4 patches of 8 pixels. Patch and stride are lightning-bolts'."""
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    common.set_views(config, "crop_flip", size=20, crop_area=(0.5, 1.0))
    config.augment.views = 1
    config.model.update(norm="layer", zero_gamma=True, patch=8, patch_stride=4)
    config.method.update(
        first_step=2, steps=2, target_dim=32, scale=0.3, context_dim=64, context_depth=2
    )
    config.optim.update(
        name="adamw", lr=2e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images."""
    common.folder(config)
    common.standardise(config, "folder")
    common.set_views(config, "crop_flip", size=128, crop_area=(0.5, 1.0))
    config.augment.views = 1
    config.model.update(norm="layer", patch=32, patch_stride=16)
    config.method.update(first_step=2, steps=2, context_depth=3)
