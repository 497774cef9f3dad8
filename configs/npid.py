"""NPID, or instance discrimination by a memory bank (Wu et al. 2018, arXiv 1805.01978).

    python -m ssl_jax.train --config=configs/npid.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, 4096 noise samples, batch 256, 200 epochs, by the defaults of
              zhirongw/lemniscate.pytorch main.py. Expected: 54.0 % linear top-1 (paper, table 2).
              Not run here yet. The paper's 46.5 % kNN uses the embedding of width 128. Our kNN uses
              the encoder's features.
:cifar10      ResNet-18, full softmax, batch 128, 200 epochs, by the same authors' cifar.py and
              README (--nce-k 0 --nce-t 0.1 --lr 0.03). Expected: about 80 % kNN of the embedding
              (paper, table 1). Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 96 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.

"VARIANT,augment=moco_v2" uses the views of another recipe in `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "npid",
    "loss": "nce",  # nce | softmax
    "temperature": 0.07,
    "momentum": 0.5,  # of a row of the bank
    "noise_samples": 4096,  # per image; nce only
    "proximal": 0.0,  # weight of equation 10; 0 in the authors' code
    "output_dim": 128,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "cifar10", or with other views "imagenet,augment=moco_v2"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by the authors' main.py: SGD at 0.03 for a batch of 256.

    The rate is divided by 10 at epochs 120 and 160 of 200.
    """
    common.imagenet(config)
    common.standardise(config, "imagenet")
    common.set_views(config, "moco_v1", size=224)  # MoCo took its views from NPID
    config.augment.views = 1
    config.model.update(name="resnet50", zero_gamma=False)
    config.optim.update(
        name="sgd", lr=0.03, lr_rule="constant", schedule="step", drops=(0.6, 0.8), drop=0.1,
        warmup_epochs=0.0, weight_decay=1e-4, momentum=0.9, decay_all=True,
    )  # fmt: skip
    config.train.update(batch_size=256, epochs=200.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 with the full softmax over all 50,000 rows. The authors do not flip."""
    common.cifar10(config)
    common.standardise(config, "cifar10_within")
    common.set_views(config, "npid_cifar", size=32)
    config.augment.views = 1
    config.model.update(name="resnet18", stem="cifar", zero_gamma=False)
    config.method.update(loss="softmax", temperature=0.1)
    config.optim.update(
        name="sgd", lr=0.03, lr_rule="constant", schedule="step", drops=(0.6, 0.8), drop=0.1,
        warmup_epochs=0.0, weight_decay=5e-4, momentum=0.9, decay_all=True,
    )  # fmt: skip
    config.train.update(batch_size=128, epochs=200.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores, for twice the steps of methods with two views.

    An image's row in the bank has no effect until the image returns in a later epoch.
    """
    common.cifar10_cpu(config, steps=2200)
    common.standardise(config, "cifar10")
    common.set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.augment.views = 1
    config.method.update(loss="softmax", temperature=0.1)
    # At 5e-3, small encoders collapsed within their first epochs.
    config.optim.update(
        name="adamw", lr=1e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images, with the full softmax over all images."""
    common.folder(config)
    common.standardise(config, "folder")
    common.set_views(config, "moco_v1", size=96)
    config.augment.views = 1
    config.method.update(loss="softmax", temperature=0.1)
