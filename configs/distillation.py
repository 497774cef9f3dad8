"""Distillation of a fine-tuned network (SimCLR v2, Chen et al. 2020, arXiv 2006.10029, section 2).

    python -m ssl_jax.train --config=configs/distillation.py:imagenet --workdir=runs/student \
        --config.method.teacher=runs/tuned

The teacher is a workdir of `ssl_jax.finetune`. Training reads no label. `config.model` is the
student: with the teacher's encoder this is self-distillation, with a smaller encoder it is
distillation from big to small.

:imagenet     ResNet-50, batch 4096, 400 epochs. Expected, recalled from the paper: about 77.5 %
              top-1 by the student's classifier. The teacher is ResNet-152 (3x, SK), fine-tuned on
              10 % of the labels. Not run here yet.
:cifar10      ResNet-18, batch 512, 400 epochs. No recipe and no number are published: optimizer and
              batch are those of SimCLR v2's pre-training. Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 96 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. benchmarks/RESULTS.md has a part of the
              results.

"VARIANT,augment=simclr_cifar" uses the views of another recipe in `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "distillation",
    "teacher": "",  # a fine-tuned workdir
    "temperature": 1.0,  # from big to small; self-distillation: 0.1
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 with the rate, decay and batch of SimCLR v2's pre-training.

    The rate is 0.1 * sqrt(batch), the decay 1e-4, and the warm-up takes 5 % of the run.
    """
    common.imagenet(config)
    common.set_views(config, "crop_flip", size=224)
    config.augment.views = 1
    config.model.update(name="resnet50", zero_gamma=True)
    config.optim.update(
        name="lars", lr=0.1, lr_rule="sqrt", schedule="cosine", warmup_epochs=20.0,
        weight_decay=1e-4, momentum=0.9, lr_in_momentum=True,
    )  # fmt: skip
    config.train.update(batch_size=4096, epochs=400.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 with the recipe of SimCLR v2 on CIFAR-10, for 400 epochs."""
    common.cifar10(config)
    common.set_views(config, "crop_flip", size=32)
    config.augment.views = 1
    config.model.update(name="resnet18", stem="cifar", zero_gamma=True)
    config.optim.update(
        name="lars", lr=1.0, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=1e-4, momentum=0.9, lr_in_momentum=True,
    )  # fmt: skip
    config.train.update(batch_size=512, epochs=400.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.set_views(config, "crop_flip", size=24, crop_area=(0.2, 1.0))
    config.augment.views = 1
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images; also pass --config.method.teacher=RUN."""
    common.folder(config)
    common.set_views(config, "crop_flip", size=96)
    config.augment.views = 1
