"""SimCLR (Chen et al. 2020, arXiv 2002.05709), and its variants by argument.

    python -m ssl_jax.train --config=configs/simclr.py:VARIANT --workdir=runs/NAME

:digits       scikit-learn's digits, no files needed. Expected: 95.5 % linear from 10 labels
              per class, 98.4 % kNN. About 2.5 minutes on 2 CPU cores.
:cifar10_cpu  with --config.data.dir=DATA_DIR, where tensorflow-datasets has prepared cifar10.
              Expected: 51.3 % linear, 52.4 % kNN. About 13 minutes on 2 CPU cores.
:cifar10      ResNet-18 by the authors' README (1000 epochs, batch 512). Expected: about 91 %
              linear (their README); not run here yet. Hours on one recent GPU.
:imagenet     ResNet-50 by the paper (1000 epochs, batch 4096). Expected: 69.3 % linear top-1
              (paper, table 6), 64.6 % after 100 epochs (table B.1); not run here yet. The paper
              took about 1.5 h for 100 epochs on 128 TPU v3 cores.

"VARIANT,augment=moco_v2" takes the views of another recipe of `ssl_jax.inputs.image.recipes`.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "simclr",
    "temperature": 0.1,
    "head_depth": 2,
    "hidden_dim": 0,  # the encoder's width: 2048 for ResNet-50
    "output_dim": 128,
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """`arg`: a variant, and optionally other views: "cifar10", "imagenet,augment=moco_v2"."""
    return common.select(arg, METHOD, digits, cifar10, cifar10_cpu, imagenet)


def digits(config: ConfigDict) -> None:
    """scikit-learn's 1,797 handwritten digits, 8x8: `make demo`."""
    common.set_views(config, "digits", size=12, crop_area=(0.35, 1.0), crop_aspect=(0.6, 1.6667))
    config.data.source = "digits"
    config.model.update(name="resnet8", width=0.5, stem="cifar", zero_gamma=False)
    config.method.update(temperature=0.5, hidden_dim=256)
    config.optim.update(name="adamw", lr=5e-3, lr_rule="constant", weight_decay=1e-4)
    config.optim.warmup_epochs = 2.0
    config.train.update(batch_size=128, epochs=36.0, log_every=10, checkpoint_every=50)
    config.eval.update(labels_per_class=(10,), draws=10, knn_k=20)


def cifar10(config: ConfigDict) -> None:
    """ResNet-18 by the authors' README recipe (lr 1.0, wd 1e-4, T 0.5)."""
    common.cifar10(config)
    config.method.update(temperature=0.5)
    config.optim.update(lr=1.0, weight_decay=1e-4)  # times 512 / 256 by the linear rule


def cifar10_cpu(config: ConfigDict) -> None:
    """The small encoder that learns something real on 2 CPU cores."""
    common.cifar10_cpu(config)
    config.method.update(temperature=0.2, hidden_dim=256)


def imagenet(config: ConfigDict) -> None:
    """ResNet-50, batch 4096, 1000 epochs: the paper's section 2.2 and appendix B.9."""
    common.imagenet(config)
    common.set_views(config, "simclr_imagenet")
    config.train.update(batch_size=4096, epochs=1000.0)
