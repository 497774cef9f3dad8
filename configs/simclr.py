"""SimCLR (Chen et al. 2020, arXiv 2002.05709).

    python -m ssl_jax.train --config=configs/simclr.py:VARIANT --workdir=runs/NAME

:digits       scikit-learn's digits, which need no files. Expected: 95.6 % linear from 10 labels
              per class, 98.4 % kNN. Takes about 2.5 minutes on 2 CPU cores.
:folder       Your own images: pass --config.data.dir=IMAGES. ResNet-18, views of 96 pixels; batch,
              epochs and warm-up follow from the number of images. docs/train.md has examples.
:cifar10_cpu  Small encoder for 2 CPU cores. Pass --config.data.dir=DATA_DIR, the folder where
              tensorflow-datasets prepared cifar10. Expected: 51.3 % linear, 52.4 % kNN. Takes
              about 13 minutes on 2 CPU cores.
:cifar10      ResNet-18, batch 512, 1000 epochs, by google-research/simclr's README as published
              with the paper (the later one is configs/simclr_v2.py:cifar10). Expected: about 91 %
              linear (there). Not run here yet. Takes hours on one recent GPU.
:imagenet     ResNet-50, batch 4096, 1000 epochs, by the paper. Expected: 69.3 % linear top-1
              (paper, table 6), 64.6 % after 100 epochs (table B.1). Not run here yet. The paper
              reports about 1.5 h for 100 epochs on 128 TPU v3 cores.

"VARIANT,augment=moco_v2" uses the views of another recipe in `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "simclr",
    "temperature": 0.1,
    "head_depth": 2,  # layers of the projection head
    "hidden_dim": 0,  # 0: the encoder's width, 2048 for ResNet-50
    "output_dim": 128,
    "scale": 1.0,  # of the loss: see imagenet
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns a variant: "cifar10", or with other views "imagenet,augment=moco_v2"."""
    return common.select(arg, METHOD, digits, cifar10, cifar10_cpu, folder, imagenet)


def digits(config: ConfigDict) -> None:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels; `make demo` runs this variant."""
    common.set_views(config, "digits", size=12, crop_area=(0.35, 1.0), crop_aspect=(0.6, 1.6667))
    config.data.source = "digits"
    config.model.update(name="resnet8", width=0.5, stem="cifar", zero_gamma=False)
    config.method.update(temperature=0.5, hidden_dim=256)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=2.0,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.update(batch_size=128, epochs=36.0, log_every=10, checkpoint_every=50)
    config.eval.update(labels_per_class=(10,), draws=10, knn_k=20)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 by the authors' README: LARS at 1.0 * batch / 256, decay 1e-6, temperature 0.5."""
    common.cifar10(config)
    common.set_views(config, "simclr_cifar", size=32)
    config.model.update(name="resnet18", stem="cifar", zero_gamma=True)
    config.method.update(temperature=0.5, scale=2.0)
    config.optim.update(
        name="lars", lr=1.0, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=1e-6, momentum=0.9, lr_in_momentum=True,
    )  # fmt: skip
    config.train.update(batch_size=512, epochs=1000.0)


def cifar10_cpu(config: ConfigDict) -> None:
    """Trains the small encoder for 2 CPU cores."""
    common.cifar10_cpu(config, steps=1100)
    common.set_views(config, "simclr_cifar", size=24, crop_area=(0.2, 1.0))
    config.method.update(temperature=0.2, hidden_dim=256)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images."""
    common.folder(config)
    config.method.update(temperature=0.2)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50 by section 2.2 and appendix B.9: LARS at 0.3 * batch / 256, batch 4096.

    The authors' code (tf2/objective.py) adds the losses of both views, which is twice our mean.
    """
    common.imagenet(config)
    common.set_views(config, "simclr_imagenet", size=224)
    config.model.update(name="resnet50", zero_gamma=True)
    config.method.scale = 2.0
    config.optim.update(
        name="lars", lr=0.3, lr_rule="linear", schedule="cosine", warmup_epochs=10.0,
        weight_decay=1e-6, momentum=0.9, lr_in_momentum=True,
    )  # fmt: skip
    config.train.update(batch_size=4096, epochs=1000.0)
