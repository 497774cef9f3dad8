"""The published augmentations as pairs of views.

Probabilities and strengths are each paper's; the operations behind them are SimCLR's (see
`augment.device`) for every recipe. That differs from the papers' code in these points: MoCo
jitters with torchvision (contrast about the mean grey, saturation towards grey) and v1 converts to
grey before the jitter; BYOL's brightness is additive; SimCLR's crop asks for a tenth of the
image where its area range says 0.08.
"""

from ssl_jax.inputs.image.views import View

# Chen et al. 2020 (arXiv 2002.05709), appendix A: colour strength 1 and, on CIFAR-10, 0.5 (B.9).
_SIMCLR = View()
_SIMCLR_CIFAR = View(size=32, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, blur=0)

# He et al. 2020 (arXiv 1911.05722), section 3.3; Chen et al. 2020 (arXiv 2003.04297), section 3.
_MOCO = View(crop_area=(0.2, 1), brightness=0.4, contrast=0.4, saturation=0.4)
_MOCO_V1 = _MOCO._replace(jitter=1, hue=0.4, blur=0)
_MOCO_V2 = _MOCO._replace(hue=0.1)

# Grill et al. 2020 (arXiv 2006.07733), appendix B: the two views have different distributions.
_BYOL = View(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
_BYOL_PAIR = (_BYOL._replace(blur=1), _BYOL._replace(blur=0.1, solarize=0.2))

# Written digits lose their class when mirrored or cut small, and have no colour to jitter.
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

# The weakest: a random crop, mirrored or not.
_CROP_FLIP = View(jitter=0, grayscale=0, blur=0)

RECIPES: dict[str, tuple[View, ...]] = {
    "simclr_imagenet": (_SIMCLR, _SIMCLR),
    "simclr_cifar": (_SIMCLR_CIFAR, _SIMCLR_CIFAR),
    "moco_v1": (_MOCO_V1, _MOCO_V1),
    "moco_v2": (_MOCO_V2, _MOCO_V2),
    "byol": _BYOL_PAIR,
    # Chen et al. 2021 (arXiv 2104.02057): BYOL's, with larger crops for ResNet-50 (ViT: byol).
    "moco_v3": tuple(view._replace(crop_area=(0.2, 1)) for view in _BYOL_PAIR),
    "crop_flip": (_CROP_FLIP, _CROP_FLIP),
    "digits": (_DIGITS, _DIGITS),
}
