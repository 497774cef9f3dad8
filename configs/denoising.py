"""Denoising autoencoders (Vincent et al., JMLR 11, 2010): stacks of layers, or a ResNet.

    python -m ssl_jax.train --config=configs/denoising.py:VARIANT --workdir=runs/NAME

The paper has no recipe for colour images. Its stacks learn digits of 28x28 pixels: 1 to 3 layers of
1000, 2000 or 3000 units, 10, 25 or 40 % of masking noise, cross-entropy, tied weights, stochastic
gradient descent (section 6.2, recalled). Supervised training follows. Here, all layers learn
together to denoise images in the last part of the run; --config.method.end_to_end=False leaves
that part out.

:digits           The paper's digits are MNIST; these are scikit-learn's, of 8x8 pixels. Three
                  layers of 1000 units, 25 % of masking noise.
:cifar10          Three dense layers of 2000 units on 32x32 pixels. Not run here yet.
:cifar10_conv     Three convolutional layers with the widths of Masci et al. (ICANN 2011, section 4,
                  recalled), 30 % of masking noise. Not run here yet.
:imagenet         The convolutional stack on 64x64 pixels, for comparison only: no recipe is
                  published. Not run here yet.
:folder           Your own images: pass --config.data.dir=IMAGES. ResNet-18 with a convolutional
                  decoder, views of 96 pixels; batch, epochs and warm-up follow from the number of
                  images. docs/train.md has examples.
:cifar10_cpu      The small ResNet of the other methods, with a decoder, for 2 CPU cores. Pass
                  --config.data.dir=DATA_DIR, the folder where tensorflow-datasets prepared cifar10.
                  Chosen in this project; docs/methods.md has results of shorter runs.
:cifar10_cpu_conv   A small stack of two convolutional layers.
:cifar10_cpu_dense  A small stack of two dense layers of 512 units.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "denoising",
    "noise": "masking",  # or "salt_and_pepper", "gaussian"
    "noise_level": 0.25,  # probability that a component is corrupted, or standard deviation
    "loss": "cross_entropy",  # or "squared_error"
    "corrupted_weight": 1.0,  # alpha of section 4.3: weight of the error in corrupted components
    "clean_weight": 1.0,  # beta: in all others
    "tied": True,  # a layer of a stack decodes with the transposed weights of the encoder
    "end_to_end": True,  # the last part of the run trains all layers of a stack together
    "decoder_width": 64,  # of the decoder behind a ResNet
}


def get_config(arg: str = "cifar10") -> ConfigDict:
    """Returns a variant: "imagenet", or with other views "cifar10,augment=simclr_cifar"."""
    variants = digits, cifar10, cifar10_conv, imagenet, folder
    small = cifar10_cpu, cifar10_cpu_conv, cifar10_cpu_dense
    return common.select(arg, METHOD, *variants, *small)


def digits(config: ConfigDict) -> None:
    """Grey images of 8x8 pixels, neither cropped nor flipped."""
    _views(config, size=8, crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0.0)
    config.data.source = "digits"
    _stack(config, widths=(1000, 1000, 1000), kind="dense")
    _adam(config, lr=1e-3)
    config.train.update(batch_size=128, epochs=120.0, log_every=10, checkpoint_every=200)
    config.eval.update(labels_per_class=(10,), draws=10, knn_k=20)


def cifar10(config: ConfigDict) -> None:
    """Three dense layers of 2000 units."""
    common.cifar10(config)
    _views(config, size=32, crop_area=(0.8, 1.0))
    _stack(config, widths=(2000, 2000, 2000), kind="dense")
    _adam(config, lr=3e-4)
    config.train.update(batch_size=128, epochs=200.0)


def cifar10_conv(config: ConfigDict) -> None:
    """Three convolutional layers of 100, 150 and 200 channels."""
    common.cifar10(config)
    _views(config, size=32, crop_area=(0.8, 1.0))
    _stack(config, widths=(100, 150, 200), kind="convolutional")
    config.method.noise_level = 0.3
    _adam(config, lr=3e-4)
    config.train.update(batch_size=128, epochs=200.0)


def imagenet(config: ConfigDict) -> None:
    """The convolutional stack on images of 64x64 pixels."""
    common.imagenet(config)
    _views(config, size=64, crop_area=(0.8, 1.0))
    _stack(config, widths=(100, 150, 200), kind="convolutional")
    config.method.noise_level = 0.3
    _adam(config, lr=3e-4)
    config.train.update(batch_size=1024, epochs=20.0)


def folder(config: ConfigDict) -> None:
    """ResNet-18 on a folder of your own images."""
    common.folder(config)
    common.standardise(config, "folder")
    common.set_views(config, "crop_flip", size=96, crop_area=(0.2, 1.0))
    config.augment.views = 1


def cifar10_cpu(config: ConfigDict) -> None:
    """The small ResNet with a decoder."""
    common.cifar10_cpu(config, steps=1100)
    _views(config, size=24, crop_area=(0.2, 1.0))
    config.method.decoder_width = 16
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
    config.train.batch_size = 128


def cifar10_cpu_conv(config: ConfigDict) -> None:
    """Two small convolutional layers."""
    common.cifar10_cpu(config, steps=1100)
    _views(config, size=24, crop_area=(0.8, 1.0))
    _stack(config, widths=(32, 64), kind="convolutional")
    _adam(config, lr=1e-3)
    config.train.batch_size = 128


def cifar10_cpu_dense(config: ConfigDict) -> None:
    """Two small dense layers."""
    cifar10_cpu_conv(config)
    _stack(config, widths=(512, 512), kind="dense")


def _views(config: ConfigDict, **overrides: object) -> None:
    """Sets one view."""
    common.set_views(config, "crop_flip", **overrides)
    config.augment.views = 1


def _stack(config: ConfigDict, *, widths: tuple[int, ...], kind: str) -> None:
    """Replaces the ResNet by a stack of layers."""
    shared = {field: config.model[field] for field in ("bn_group", "dtype", "init")}
    config.model = {"name": "sdae", "kind": kind, "widths": widths, **shared}


def _adam(config: ConfigDict, *, lr: float) -> None:
    """Sets Adam at one rate throughout, because the layers learn in turn."""
    config.optim.update(
        name="adamw", lr=lr, lr_rule="constant", schedule="constant", warmup_epochs=0.0,
        weight_decay=1e-4, momentum=0.9, b2=0.999,
    )  # fmt: skip
