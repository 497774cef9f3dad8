"""MoCo v1 (He et al. 2019, arXiv 1911.05722).

    python -m ssl_jax.train --config=configs/moco_v1.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 256, 200 epochs, BatchNorm statistics in 8 groups of 32 images, by
              the defaults of facebookresearch/moco main_moco.py. Expected: 60.6 % linear top-1
              (paper, table 1). Not run here yet.
:cifar10      ResNet-18, batch 512, 200 epochs, BatchNorm statistics in 8 groups of 64 images, by
              the authors' demo (facebookresearch/moco colab/moco_cifar10_demo.ipynb). Expected:
              82.6 % kNN of the embedding (there; 86.3 % and 88.7 % after 400 and 800 epochs). Our
              kNN uses the encoder's features. Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 96 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.

"VARIANT,augment=simclr_cifar" uses the views of another recipe in `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common
from ssl_jax.field import AUTO

METHOD = {
    "name": "moco",
    "temperature": 0.07,
    "momentum": 0.999,
    "queue_size": 65536,  # a multiple of train.batch_size
    "head_depth": 1,
    "output_dim": 128,
    "shuffle_groups": 8,  # normalisation groups among which keys are permuted
    "temperature_schedule": "constant",  # constant | cosine | log
    "temperature_end": 0.1,  # of the schedule "cosine"
    "temperature_periods": 0.5,  # of "cosine": 0.5 falls once from start to end
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by section 4: SGD at 0.03 for a batch of 256.

    The rate is divided by 10 at epochs 120 and 160 of 200.
    """
    common.imagenet(config)
    common.standardise(config, "imagenet")
    common.set_views(config, "moco_v1", size=224)
    config.model.update(name="resnet50", zero_gamma=False, bn_group=64)  # 32 images in two views
    config.optim.update(
        name="sgd", lr=0.03, lr_rule="constant", schedule="step", drops=(0.6, 0.8), drop=0.1,
        warmup_epochs=0.0, weight_decay=1e-4, momentum=0.9, decay_all=True,
    )  # fmt: skip
    config.train.update(batch_size=256, epochs=200.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 by the authors' demo, which has MoCo v1's linear head.

    Queue and momentum suit the short epochs. The views are SimCLR's for CIFAR-10.
    """
    common.cifar10(config)
    common.standardise(config, "cifar10_within")
    common.set_views(config, "simclr_cifar", size=32, interpolation="bilinear")
    # 64 images in two views: 8 groups in a batch.
    config.model.update(name="resnet18", stem="cifar", zero_gamma=False, bn_group=128)
    config.method.update(temperature=0.1, momentum=0.99, queue_size=4096)
    config.optim.update(
        name="sgd", lr=0.06, lr_rule="constant", schedule="cosine", warmup_epochs=0.0,
        weight_decay=5e-4, momentum=0.9, decay_all=True,
    )  # fmt: skip
    config.train.update(batch_size=512, epochs=200.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    common.set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.model.bn_group = 64  # 32 images in two views: 4 groups in a batch
    config.method.update(temperature=0.1, momentum=0.99, queue_size=4096, shuffle_groups=4)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images. The queue is at most one epoch long."""
    common.folder(config)
    common.standardise(config, "folder")
    common.set_views(config, "moco_v1", size=96)
    config.model.update(zero_gamma=False, bn_group=AUTO)
    config.method.update(temperature=0.1, momentum=0.99, queue_size=AUTO, shuffle_groups=4)
