"""CLIP (Radford et al. 2021, arXiv 2103.00020) and SigLIP (Zhai et al. 2023, arXiv 2303.15343).

    python -m ssl_jax.train --config=configs/clip.py:VARIANT --workdir=runs/NAME

:folder       Your own pairs: pass --config.data.dir=PAIRS, a folder of x.jpg with x.txt beside it.
              ResNet-18, views of 96 pixels, a small text transformer; batch, epochs and warm-up
              follow from the number of pairs. docs/pairs.md has examples.
:folder_siglip
              The same with SigLIP's loss.
:cifar10_captions
              A smoke test for 2 CPU cores, no result: captions are written from CIFAR-10's class
              names by templates, so they tell what the labels tell. Pass
              --config.data.dir=DATA_DIR, the folder where tensorflow-datasets prepared cifar10.
:cifar10_captions_siglip
              The same with SigLIP's loss.
:vit_b16      CLIP's ViT-B/16: batch 32768, 32 epochs of 400 million pairs, which are not public.
              Expected: 68.6 % zero-shot on ImageNet (paper, table 11, recalled). Not run here.
              The warm-up is given in epochs: it has CLIP's 2000 steps for 400 million pairs only.
:siglip_b16   SigLIP's base model: batch 32768, 9 billion pairs of WebLI, which is not public.
              Expected: 73.4 % zero-shot on ImageNet (paper, section 4, recalled). Not run here.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "clip",
    "loss": "info_nce",
    "embed_dim": 512,
    "text_width": 512,
    "text_depth": 12,
    "text_heads": 8,
    "text_causal": True,
    "text_pool": "end",
    "temperature": 0.07,
    "max_scale": 100.0,
    "bias": -10.0,
}
SIGLIP = {
    "loss": "sigmoid",
    "text_causal": False,
    "text_pool": "last",
    "temperature": 0.1,
    "max_scale": 0.0,
}
WIT = 400_000_000  # pairs of CLIP's data
SIGLIP_STEPS = 9_000_000_000 // 32_768


def get_config(arg: str = "folder") -> ConfigDict:
    """Returns a variant by its name."""
    captions = (cifar10_captions, cifar10_captions_siglip)
    variants = (folder, folder_siglip, *captions, vit_b16, siglip_b16)
    return common.select(arg, METHOD, *variants, source="pairs")


def folder(config: ConfigDict) -> None:
    """Trains on pairs of your own. Sizes of the text transformer were chosen in this project."""
    common.folder(config)
    config.data.source = "pairs"
    common.set_views(config, "crop_flip", size=96, crop_area=(0.5, 1.0), flip=0.0)
    config.augment.update(views=1, text_length=32)
    config.method.update(embed_dim=256, text_width=256, text_depth=4, text_heads=4)
    # CLIP's decay is for 400 million pairs.
    config.optim.update(weight_decay=0.1, b2=0.98)
    config.eval.protocols = ("retrieval", "label_free")
    config.eval.baselines = True


def folder_siglip(config: ConfigDict) -> None:
    """SigLIP's loss on pairs of your own."""
    folder(config)
    config.method.update(SIGLIP)


def cifar10_captions(config: ConfigDict) -> None:
    """Small encoders on CIFAR-10 with captions from templates; a smoke test of the whole way."""
    common.cifar10_cpu(config, steps=800)
    config.data.update(source="captions:tfds:cifar10", vocabulary=512)
    common.set_views(config, "crop_flip", size=24, crop_area=(0.4, 1.0))
    config.augment.update(views=1, text_length=16)
    config.method.update(embed_dim=64, text_width=64, text_depth=2, text_heads=4)
    config.optim.update(
        name="adamw", lr=5e-3, lr_rule="constant", schedule="cosine", warmup_epochs=0.2,
        weight_decay=1e-2, momentum=0.9, b2=0.98,
    )  # fmt: skip
    config.train.batch_size = 128
    config.eval.protocols = ("retrieval", "zero_shot", "knn", "linear")


def cifar10_captions_siglip(config: ConfigDict) -> None:
    """The smoke test with SigLIP's loss."""
    cifar10_captions(config)
    config.method.update(SIGLIP)


def vit_b16(config: ConfigDict) -> None:
    """ViT-B/16 by tables 18 and 20: Adam at 5e-4, decay 0.2, 2000 steps of warm-up, 32 epochs.

    The warm-up has 2000 steps for 400 million pairs. For another number of pairs, set
    --config.optim.warmup_epochs to 2000 * 32768 / pairs. Pass CLIP's own tokenizer by
    --config.data.tokenizer. Differs: Adam's epsilon is 1e-8, not 1e-6. GELU is
    not approximated by x sigmoid(1.702 x). The image encoder has no normalisation before its first
    block. Crops are of 0.9 to 1 of the area, as in mlfoundations/open_clip; the paper crops squares
    of resized images.
    """
    common.vit(config, "vit_base", 16)
    config.model.update(pool="token", positions="learned", mean=CLIP_MEAN, std=CLIP_STD)
    _web_images(config, text_length=77)
    config.data.vocabulary = 49_408
    config.optim.update(
        name="adamw", lr=5e-4, lr_rule="constant", schedule="cosine",
        warmup_epochs=2000 * 32_768 / WIT, weight_decay=0.2, momentum=0.9, b2=0.98,
    )  # fmt: skip
    config.train.update(batch_size=32_768, epochs=32.0)
    config.eval.crop = 1.0


def siglip_b16(config: ConfigDict) -> None:
    """SigLIP's ViT-B/16: rate 1e-3, decay 1e-4, b2 0.95, 20,000 steps of warm-up, 16 tokens.

    The numbers are recalled from section 4 of the paper and google-research/big_vision. Differs:
    AdamW instead of Adafactor; the mean of the patch tokens instead of attention pooling (MAP); no
    bias in the linear maps to the common space. Pass a tokenizer of 32,000 tokens with an end token
    by --config.data.tokenizer. The warm-up has 20,000 steps for 400 million pairs. For another
    number of pairs, set --config.optim.warmup_epochs to 20000 * 32768 / pairs.
    """
    common.vit(config, "vit_base", 16)
    config.model.update(pool="mean", positions="learned", mean=(0.5,) * 3, std=(0.5,) * 3)
    _web_images(config, text_length=16)
    config.data.vocabulary = 32_000
    config.method.update(SIGLIP)
    config.method.update(embed_dim=768, text_width=768, text_heads=12)
    config.optim.update(
        name="adamw", lr=1e-3, lr_rule="constant", schedule="cosine",
        warmup_epochs=20_000 * 32_768 / WIT, weight_decay=1e-4, momentum=0.9, b2=0.95,
    )  # fmt: skip
    config.train.update(batch_size=32_768, steps=SIGLIP_STEPS)
    config.eval.crop = 1.0


CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # openai/CLIP clip/clip.py
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def _web_images(config: ConfigDict, text_length: int) -> None:
    """Selects images and captions of the web, in a folder or another source of pairs."""
    config.data.source = "pairs"
    common.set_views(config, "crop_flip", size=224, crop_area=(0.9, 1.0), flip=0.0)
    config.augment.update(views=1, text_length=text_length, placement="device")
    config.train.update(log_every=50, checkpoint_every=1250)
    config.eval.update(protocols=("retrieval",), batch_size=1024, baselines=False)
