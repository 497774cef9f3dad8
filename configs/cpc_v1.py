"""CPC on images (van den Oord et al. 2018, arXiv 1807.03748, section 3.2).

    python -m ssl_jax.train --config=configs/cpc_v1.py:VARIANT --workdir=runs/NAME

:imagenet     The first three stages of ResNet-101, grey crops of 256 pixels in 7x7 patches of 64,
              batch 512. Expected: 48.7 % linear top-1 (paper, table 3). Not run here yet. Ours is a
              ResNet of version 1, theirs of version 2 (normalisation before convolutions); the
              length of their run is not published.
:cifar10      ResNet-18, grey crops of 30 pixels in 5x5 patches of 10, batch 16, 500 epochs, by
              rschwarz15/CPCV2-PyTorch README.md and argparser (a reimplementation; it has a
              WideResNet-28-2). Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. Grey views of 128 pixels in 7x7
              patches of 32, ResNet-18; batch, epochs and warm-up follow from the number of images.
              docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "cpc",
    "directions": 1,  # down
    "first_step": 2,  # the nearest row that does not overlap the context's row
    "steps": 5,  # rows that a context predicts at most
    "target_dim": 0,  # predicts the encodings themselves
    "scale": 1.0,
    "context_dim": 256,
    "context_depth": 5,
    "patch_crop": 4,  # 60 of 64 pixels
    "patch_jitter": 0.0,
    "patch_grayscale": 0.0,
    "patch_color_drop": 0.0,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant by its name."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-101 without its last stage, by section 3.2: Adam at 2e-4, 32 GPUs with 16 images.

    The paper does not state the number of updates; 200 epochs are those of CPC v2.
    """
    common.imagenet(config)
    _grey(config)
    common.set_views(
        config, "crop_flip", size=256, crop_area=((256 / 300) ** 2,) * 2, crop_aspect=(1.0, 1.0)
    )
    config.augment.views = 1
    config.eval.crop = 256 / 300
    config.model.update(
        name="resnet101_stage3", stem="imagenet", norm="none", patch=64, patch_stride=32
    )
    config.optim.update(
        name="adamw", lr=2e-4, lr_rule="constant", schedule="constant", warmup_epochs=0.0,
        weight_decay=0.0, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.update(batch_size=512, epochs=200.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 without normalisation. The source draws 16 negatives per prediction, not all."""
    common.cifar10(config)
    _grey(config)
    common.set_views(
        config, "crop_flip", size=30, crop_area=((30 / 32) ** 2,) * 2, crop_aspect=(1.0, 1.0)
    )
    config.augment.views = 1
    config.model.update(name="resnet18", stem="cifar", norm="none", patch=10, patch_stride=5)
    config.method.update(steps=3, patch_crop=0)
    config.optim.update(
        name="adamw", lr=2e-4, lr_rule="constant", schedule="constant", warmup_epochs=0.0,
        weight_decay=0.0, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.update(batch_size=16, epochs=500.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains a small ResNet on 4x4 patches of 8 pixels. Patch and stride are lightning-bolts'."""
    common.cifar10_cpu(config, steps=1100)
    _grey(config)
    common.set_views(config, "crop_flip", size=20, crop_area=(0.5, 1.0))
    config.augment.views = 1
    config.model.update(norm="none", zero_gamma=True, patch=8, patch_stride=4)
    config.method.update(patch_crop=1, context_dim=64, context_depth=2)
    config.optim.update(
        name="adamw", lr=3e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images, in grey."""
    common.folder(config)
    _grey(config)
    common.set_views(config, "crop_flip", size=128, crop_area=(0.5, 1.0))
    config.augment.views = 1
    config.model.update(norm="none", patch=32, patch_stride=16)
    config.method.update(patch_crop=2, context_depth=3)
    config.optim.update(lr=2e-5)


def _grey(config: ConfigDict) -> None:
    """Reads images in grey, for training and for evaluation, with values around 0."""
    config.data.channels = 1
    config.model.update(mean=(0.5,), std=(0.25,))
