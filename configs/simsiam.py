"""SimSiam (Chen and He 2020, arXiv 2011.10566).

    python -m ssl_jax.train --config=configs/simsiam.py:VARIANT --workdir=runs/NAME

:imagenet     ResNet-50, batch 512, 100 epochs, by facebookresearch/simsiam main_simsiam.py with
              --fix-pred-lr. Expected: 68.1 % linear top-1 (their README; paper, table 1). Not run
              here yet.
:cifar10      ResNet-18, batch 512, 800 epochs, by appendix D of the paper. Expected: 91.8 % linear
              (there). Not run here yet.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 96 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Chosen in this project; docs/methods.md has
              results of shorter runs.

"VARIANT,augment=simclr_cifar" uses the views of another recipe in `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "simsiam",
    "hidden_dim": 0,  # 0: the encoder's width, 2048 for ResNet-50
    "bottleneck_dim": 512,  # hidden width of the predictor
    "output_dim": 2048,
    "head_depth": 3,  # layers of the projector
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    return common.select(arg, METHOD, cifar10, cifar10_cpu, folder, imagenet)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by section 3: SGD at 0.05 * batch / 256, but a constant rate for the predictor."""
    common.imagenet(config)
    common.standardise(config, "imagenet")
    common.set_views(config, "moco_v2", size=224)
    config.model.update(name="resnet50", zero_gamma=True)
    config.optim.update(
        name="sgd", lr=0.05, lr_rule="linear", schedule="cosine", warmup_epochs=0.0,
        weight_decay=1e-4, momentum=0.9, decay_all=True,
    )  # fmt: skip
    config.optim.groups = {"predictor": {"schedule": "constant"}}
    config.train.update(batch_size=512, epochs=100.0)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 by appendix D: a projector of two layers, base rate 0.03, decay 5e-4, no blur.

    What the appendix does not name is that of ImageNet: crops from 0.2 of the area (appendix A) and
    residual blocks that start as the identity (simsiam/builder.py). The paper does not name the
    mean and the standard deviation of the pixels: here, solo-learn's.
    """
    common.cifar10(config)
    common.standardise(config, "cifar10")
    common.set_views(config, "simsiam_cifar", size=32)
    config.model.update(name="resnet18", stem="cifar", zero_gamma=True)
    config.method.head_depth = 2
    config.optim.update(
        name="sgd", lr=0.03, lr_rule="linear", schedule="cosine", warmup_epochs=0.0,
        weight_decay=5e-4, momentum=0.9, decay_all=True,
    )  # fmt: skip
    config.train.update(batch_size=512, epochs=800.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.standardise(config, "cifar10")
    common.set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.method.update(hidden_dim=256, bottleneck_dim=64, output_dim=256, head_depth=2)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    # With the encoder's rate, the features collapse to 3 directions in such a short run. A faster
    # predictor prevents it (Tian et al., arXiv 2102.06810): in 400 steps of the zoo it gained 5.6
    # points of linear accuracy (one seed).
    config.optim.groups = {"predictor": {"lr": 0.02, "schedule": "constant"}}
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images. The predictor's rate stays constant."""
    common.folder(config)
    common.standardise(config, "folder")
    common.set_views(config, "moco_v2", size=96)
    config.method.update(bottleneck_dim=128, output_dim=512)
    config.optim.groups = {"predictor": {"schedule": "constant"}}
