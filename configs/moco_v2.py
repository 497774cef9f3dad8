"""MoCo v2 (Chen et al. 2020, arXiv 2003.04297).

    python -m ssl_jax.train --config=configs/moco_v2.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 256, 200 epochs, BatchNorm statistics in 8 groups of 32 images, by
              facebookresearch/moco main_moco.py with --mlp --aug-plus --cos --moco-t 0.2. Expected:
              67.5 % linear top-1, 71.1 % after 800 epochs (their README). Not run here yet.
:cifar10      ResNet-18, batch 256, 1000 epochs, by solo-learn
              scripts/pretrain/cifar/mocov2plus.yaml, but only one view is a query. No number is
              published for this; solo-learn's README has 92.94 % linear with both views as
              queries. Not run here yet. configs/moco_v1.py:cifar10 is the authors' own recipe.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 96 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.

"VARIANT,augment=byol" uses the views of another recipe in `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common
from ssl_jax.field import AUTO

METHOD = {
    "name": "moco",
    "temperature": 0.2,
    "momentum": 0.999,
    "queue_size": 65536,  # a multiple of train.batch_size
    "head_depth": 2,
    "hidden_dim": 0,  # 0: the encoder's width, 2048 for ResNet-50
    "output_dim": 128,
    "shuffle_groups": 8,  # normalisation groups among which keys are permuted
    "temperature_schedule": "constant",  # constant | cosine | log
    "temperature_end": 0.1,  # of the schedule "cosine"
    "temperature_periods": 0.5,  # of "cosine": 0.5 falls once from start to end
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "cifar10", or with other views "imagenet,augment=byol"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by section 3 and the authors' repository: SGD at 0.03 for a batch of 256."""
    common.imagenet(config)
    common.standardise(config, "imagenet")
    common.set_views(config, "moco_v2", size=224)
    config.model.update(name="resnet50", zero_gamma=False, bn_group=64)  # 32 images in two views
    config.optim.update(
        name="sgd", lr=0.03, lr_rule="constant", schedule="cosine", warmup_epochs=0.0,
        weight_decay=1e-4, momentum=0.9, decay_all=True,
    )  # fmt: skip
    config.train.update(batch_size=256, epochs=200.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 by solo-learn's mocov2plus.yaml, with two differences.

    solo-learn exchanges the views and adds the second loss. Its momentum rises from 0.99 to 0.999;
    here it stays at 0.99. Both normalise the whole batch, so no keys are permuted.
    """
    common.solo_learn_cifar10(config, "solo_symmetric_weak")
    config.method.update(momentum=0.99, queue_size=32768, shuffle_groups=1)
    config.method.update(hidden_dim=2048, output_dim=256)
    config.optim.update(
        name="sgd", lr=0.3, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=1e-4, momentum=0.9, decay_all=True,
    )  # fmt: skip


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    common.set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.model.bn_group = 64  # 32 images in two views: 4 groups in a batch
    config.method.update(momentum=0.99, queue_size=4096, hidden_dim=256, shuffle_groups=4)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images. The queue is at most one epoch long."""
    common.folder(config)
    common.standardise(config, "folder")
    common.set_views(config, "moco_v2", size=96)
    config.model.update(zero_gamma=False, bn_group=AUTO)
    config.method.update(momentum=0.99, queue_size=AUTO, shuffle_groups=4)
