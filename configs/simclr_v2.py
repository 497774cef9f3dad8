"""SimCLR v2 (Chen et al. 2020, arXiv 2006.10029).

    python -m ssl_jax.train --config=configs/simclr_v2.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, 3-layer head, batch 4096, 800 epochs, by appendix B of the paper. Expected:
              71.7 % linear top-1 (google-research/simclr's README). Not run here yet.
:imagenet_sk  ResNet-152, three times as wide, with selective kernels. Expected: 79.8 % (there). Not
              run here yet.
:cifar10      ResNet-18, batch 512, 1000 epochs, by google-research/simclr's README and the defaults
              of its run.py. Expected: about 91 % linear (there). Not run here yet.
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
    "name": "simclr_v2",
    "temperature": 0.1,
    "head_depth": 3,
    "hidden_dim": 0,  # 0: the encoder's width, 2048 for ResNet-50
    "output_dim": 128,
    "memory_size": 0,  # images; 0: no memory; 65536 in the paper
    "memory_momentum": 0.999,
    "scale": 1.0,  # of the loss: see imagenet
    "temperature_schedule": "constant",  # constant | cosine | log
    "temperature_end": 0.1,  # of the schedule "cosine"
    "temperature_periods": 0.5,  # of "cosine": 0.5 falls once from start to end
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet, imagenet_sk)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by appendix B: LARS at 0.1 * sqrt(batch), 6.4 at 4096, and 5 % warm-up.

    The authors' code (tf2/objective.py) adds the losses of both views, which is twice our mean. It
    has no memory; the paper reports about one point more with one (appendix D).
    """
    common.imagenet(config)
    common.set_views(config, "simclr_imagenet", size=224)
    config.model.update(name="resnet50", zero_gamma=True)
    config.method.scale = 2.0
    config.optim.update(
        name="lars", lr=0.1, lr_rule="sqrt", schedule="cosine", warmup_epochs=40.0,
        weight_decay=1e-4, momentum=0.9, lr_in_momentum=True,
    )  # fmt: skip
    config.train.update(batch_size=4096, epochs=800.0)


def imagenet_sk(config: ConfigDict) -> None:
    """The largest model of the paper: ResNet-152, 3x wide, selective kernels."""
    imagenet(config)
    config.model.update(name="resnet152", width=3.0, sk_ratio=0.0625)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 by the authors' README: LARS at 1.0 * batch / 256, decay 1e-4, temperature 0.5."""
    common.cifar10(config)
    common.set_views(config, "simclr_cifar", size=32)
    config.model.update(name="resnet18", stem="cifar", zero_gamma=True)
    config.method.update(temperature=0.5, scale=2.0)
    config.optim.update(
        name="lars", lr=1.0, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=1e-4, momentum=0.9, lr_in_momentum=True,
    )  # fmt: skip
    config.train.update(batch_size=512, epochs=1000.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores, with a memory."""
    common.cifar10_cpu(config, steps=1100)
    common.set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.method.update(temperature=0.2, hidden_dim=256)
    config.method.update(memory_size=1024, memory_momentum=0.99)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images, with a memory for small batches."""
    common.folder(config)
    config.method.update(temperature=0.2, memory_size=AUTO, memory_momentum=0.99)
