"""Published augmentation recipes as pairs of views.

Probabilities, strengths, crop areas, interpolation and blur are those of each source. The colour
operations and their order are those of SimCLR for every recipe (see `inputs.image.device`).
docs/methods.md lists the differences that remain.
"""

from ssl_jax.inputs.image.views import View

# Chen et al. 2020 (arXiv 2002.05709), appendix A: colour strength 1 and, on CIFAR-10, 0.5 (B.9).
_SIMCLR = View()
_SIMCLR_CIFAR = View(size=32, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, blur=0)

# Authors who use PyTorch blur with Pillow or OpenCV. Neither cuts off the Gaussian, at any size.
_TORCH = View(blur_kernel=0)
_TORCH_BILINEAR = _TORCH._replace(interpolation="bilinear")  # torchvision's default

# He et al. 2020 (arXiv 1911.05722), section 3.3; Chen et al. 2020 (arXiv 2003.04297), section 3;
# facebookresearch/moco main_moco.py. SimSiam's views are those of MoCo v2 (facebookresearch/simsiam
# main_simsiam.py), on CIFAR-10 without blur (arXiv 2011.10566, appendix D).
_MOCO = _TORCH_BILINEAR._replace(crop_area=(0.2, 1), brightness=0.4, contrast=0.4, saturation=0.4)
_MOCO_V1 = _MOCO._replace(jitter=1, hue=0.4, blur=0)
_MOCO_V2 = _MOCO._replace(hue=0.1)
_SIMSIAM_CIFAR = _MOCO_V2._replace(size=32, blur=0)

# NPID (arXiv 1805.01978) has MoCo v1's views, on CIFAR-10 without mirroring
# (zhirongw/lemniscate.pytorch cifar.py).
_NPID_CIFAR = _MOCO_V1._replace(size=32, flip=0)

# Caron et al. 2020 (arXiv 2006.09882), facebookresearch/swav src/multicropdataset.py and
# scripts/swav_800ep_pretrain.sh: SimCLR's colours. Small crops differ in size and area only.
_SWAV = _TORCH_BILINEAR._replace(crop_area=(0.14, 1))


def _byol_pair(view: View) -> tuple[View, View]:
    """Returns BYOL's views (arXiv 2006.07733, appendix B): unequal blur and solarization."""
    view = view._replace(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    return view._replace(blur=1), view._replace(blur=0.1, solarize=0.2)


# solo-learn (da Costa et al. 2022, JMLR 23), scripts/pretrain/cifar/augmentations/*.yaml and
# cifar/vicreg.yaml. Each recipe has the name of its file.
_SOLO = _TORCH._replace(size=32)
_SOLO_WEAK = _SOLO._replace(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
_SOLO_PLAIN = _SOLO_WEAK._replace(saturation=0.2, blur=0)
_SOLO_VICREG = _SOLO_PLAIN._replace(crop_area=(0.2, 1), solarize=0.1)

# Handwritten digits lose their class if they are mirrored or cropped closely. They have no colour.
_DIGITS = View(
    size=16,
    crop_area=(0.35, 1),
    flip=0,
    brightness=0.4,
    contrast=0.4,
    saturation=0,
    hue=0,
    grayscale=0,
    blur=0,
    noise=0.1,
)

# The weakest recipe: random crop and flip.
_CROP_FLIP = View(jitter=0, grayscale=0, blur=0)

RECIPES: dict[str, tuple[View, ...]] = {
    "simclr_imagenet": (_SIMCLR, _SIMCLR),
    "simclr_cifar": (_SIMCLR_CIFAR, _SIMCLR_CIFAR),
    "moco_v1": (_MOCO_V1, _MOCO_V1),
    "moco_v2": (_MOCO_V2, _MOCO_V2),
    "simsiam_cifar": (_SIMSIAM_CIFAR, _SIMSIAM_CIFAR),
    "npid_cifar": (_NPID_CIFAR, _NPID_CIFAR),
    "swav": (_SWAV, _SWAV),
    "byol": _byol_pair(View()),
    # Chen et al. 2021 (arXiv 2104.02057), facebookresearch/moco-v3 main_moco.py and CONFIG.md: for
    # ResNet-50; the crops of ViT are smaller.
    "moco_v3": _byol_pair(_TORCH_BILINEAR._replace(crop_area=(0.2, 1))),
    "moco_v3_vit": _byol_pair(_TORCH_BILINEAR),
    # facebookresearch/barlowtwins main.py. VICReg has the same (facebookresearch/vicreg
    # augmentations.py).
    "barlow_twins": _byol_pair(_TORCH),
    # Caron et al. 2021 (arXiv 2104.14294), facebookresearch/dino main_dino.py. Small crops are
    # blurred with probability 0.5 and never solarized. Area of the recipe for ViT-S/16.
    "dino": _byol_pair(_TORCH._replace(crop_area=(0.4, 1))),
    "solo_symmetric": (_SOLO, _SOLO),
    "solo_symmetric_weak": (_SOLO_WEAK, _SOLO_WEAK),
    "solo_asymmetric": (_SOLO_PLAIN, _SOLO_PLAIN._replace(solarize=0.2)),
    "solo_vicreg": (_SOLO_VICREG, _SOLO_VICREG),
    "crop_flip": (_CROP_FLIP, _CROP_FLIP),
    "digits": (_DIGITS, _DIGITS),
}
