"""Distillation of a fine-tuned network (SimCLR v2, Chen et al. 2020, arXiv 2006.10029, section 2).

    python -m ssl_jax.train --config=configs/distillation.py:imagenet --workdir=runs/student \
        --config.method.teacher=runs/tuned

The teacher is a workdir of `ssl_jax.finetune`; no label is read but for evaluation. The student is
`config.model`: like the teacher's it is self-distillation, another one distils from big to small.

:imagenet     ResNet-50, 400 epochs of batch 4096. Expected, recalled from the paper: with 10 % of
              the labels about 77.5 % top-1 by the student's classifier, taught by ResNet-152 (3x,
              SK); not run here yet.
:cifar10      ResNet-18, batch 512, 400 epochs; no published figure; not run here yet.
:cifar10_cpu  with --config.data.dir=DATA_DIR, where tensorflow-datasets has prepared cifar10: a
              small encoder for 2 CPU cores; a part of it is measured in benchmarks/RESULTS.md.

"VARIANT,augment=simclr_cifar" takes the views of another recipe of `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "distillation",
    "teacher": "",  # a fine-tuned workdir
    "temperature": 1.0,  # from big to small; 0.1 for self-distillation
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """`arg`: a variant, and optionally other views: "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, imagenet)


def imagenet(config: ConfigDict) -> None:
    """Rate, decay and batch as in pre-training (0.1 sqrt(batch), 1e-4), warm-up of 5 %."""
    common.imagenet(config)
    common.set_views(config, "crop_flip")
    config.augment.views = 1
    config.optim.update(lr=0.1, lr_rule="sqrt", weight_decay=1e-4, warmup_epochs=20.0)
    config.train.update(batch_size=4096, epochs=400.0)


def cifar10(config: ConfigDict) -> None:
    """As SimCLR v2 on CIFAR-10, with 400 epochs."""
    common.cifar10(config)
    common.set_views(config, "crop_flip", size=32)
    config.augment.views = 1
    config.optim.update(lr=1.0, weight_decay=1e-4)
    config.train.epochs = 400.0


def cifar10_cpu(config: ConfigDict) -> None:
    """The small encoder that learns something real on 2 CPU cores."""
    common.cifar10_cpu(config)
    common.set_views(config, "crop_flip", size=24, crop_area=(0.2, 1.0))
    config.augment.views = 1
