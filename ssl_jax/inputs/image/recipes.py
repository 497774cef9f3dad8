"""Published augmentation recipes as pairs of views.

Probabilities and strengths are those of each paper. The operations are those of SimCLR for every
recipe (see `inputs.image.device`). The code of the papers differs in these points:

* MoCo jitters with torchvision: contrast scales around the mean grey, saturation moves to grey.
* MoCo v1 converts to grey before the jitter.
* BYOL adds brightness.
* SimCLR's crop covers at least 10 % of the image, although its area range starts at 8 %.
"""

from ssl_jax.inputs.image.views import View

# Chen et al. 2020 (arXiv 2002.05709), appendix A: colour strength 1 and, on CIFAR-10, 0.5 (B.9).
_SIMCLR = View()
_SIMCLR_CIFAR = View(size=32, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, blur=0)

# He et al. 2020 (arXiv 1911.05722), section 3.3; Chen et al. 2020 (arXiv 2003.04297), section 3.
_MOCO = View(crop_area=(0.2, 1), brightness=0.4, contrast=0.4, saturation=0.4)
_MOCO_V1 = _MOCO._replace(jitter=1, hue=0.4, blur=0)
_MOCO_V2 = _MOCO._replace(hue=0.1)

# Grill et al. 2020 (arXiv 2006.07733), appendix B: the two views differ in blur and solarization.
_BYOL = View(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
_BYOL_PAIR = (_BYOL._replace(blur=1), _BYOL._replace(blur=0.1, solarize=0.2))

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
    "byol": _BYOL_PAIR,
    # Chen et al. 2021 (arXiv 2104.02057): BYOL with larger crops, for ResNet-50. For ViT: "byol".
    "moco_v3": tuple(view._replace(crop_area=(0.2, 1)) for view in _BYOL_PAIR),
    "crop_flip": (_CROP_FLIP, _CROP_FLIP),
    "digits": (_DIGITS, _DIGITS),
}
