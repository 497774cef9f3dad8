"""SwAV (Caron et al. 2020, arXiv 2006.09882).

    python -m ssl_jax.train --config=configs/swav.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 4096, 2 views of 224 pixels and 6 of 96 pixels, 800 epochs, by
              facebookresearch/swav scripts/swav_800ep_pretrain.sh. Expected: 75.3 % linear top-1
              (their README; paper, table 1). Not run here yet.
:cifar10      ResNet-18, batch 256, a queue of 3840 embeddings, 1000 epochs, by solo-learn
              scripts/pretrain/cifar/swav.yaml. Expected: 89.17 % linear (solo-learn's README; the
              older swav.sh has no blur, and decays and adapts every parameter). Not run here yet.
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
    "name": "swav",
    "prototypes": 3000,
    "temperature": 0.1,
    "epsilon": 0.05,  # of the Sinkhorn-Knopp algorithm
    "iterations": 3,  # of the Sinkhorn-Knopp algorithm
    "freeze_epochs": 1.0,  # in which the prototypes are frozen
    "skip_frozen": True,  # by the optimizer; False: it makes updates without gradient
    "queue_size": 0,  # embeddings, a multiple of train.batch_size; 0: no queue
    "queue_epoch": 15.0,  # from which the queue takes part
    "hidden_dim": 2048,
    "output_dim": 128,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by the authors' 800-epoch script: LARC, 4.8 at batch 4096.

    LARC is LARS for every parameter. In the script, the rate warms up from 0.3 and ends at 0.0048;
    here it starts and ends at 0. BatchNorm sees the whole batch; theirs sees groups of 512 images.
    They divide red by 0.228 (src/multicropdataset.py), other authors and this config by 0.229.
    """
    common.imagenet(config)
    common.standardise(config, "imagenet")
    common.set_views(config, "swav", size=224)
    config.augment.local = {"views": 6, "size": 96, "crop_area": (0.05, 0.14)}
    config.model.update(name="resnet50", zero_gamma=False)
    config.optim.update(
        name="lars", lr=0.3, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=1e-6, momentum=0.9, lr_in_momentum=False, decay_all=True, adapt_all=True,
    )  # fmt: skip
    config.train.update(batch_size=4096, epochs=800.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 by solo-learn's swav.yaml: two views, and a queue because the batch is small."""
    common.solo_learn_cifar10(config, "solo_symmetric")
    config.method.update(queue_size=3840, queue_epoch=50.0, freeze_epochs=2.0)
    common.solo_learn_lars(config, lr=0.6, weight_decay=1e-6)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores, with two small crops."""
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    common.set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.augment.local = {"views": 2, "size": 16, "crop_area": (0.1, 0.4)}
    # No queue: a batch of 128 has two images per prototype. Old embeddings cost 2.5 points.
    config.method.update(prototypes=64, freeze_epochs=0.1, hidden_dim=256)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images. A batch has two images per prototype."""
    common.folder(config)
    common.standardise(config, "folder")
    common.set_views(config, "swav", size=96)
    config.augment.local = {"views": 4, "size": 48, "crop_area": (0.05, 0.14)}
    config.method.update(prototypes=AUTO, hidden_dim=512)
