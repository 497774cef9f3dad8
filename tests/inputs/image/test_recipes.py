"""Recipes against the numbers of their papers and of their authors' code."""

import pytest

from ssl_jax.inputs.image.recipes import RECIPES

# Crop area, interpolation, (probability, brightness, contrast, saturation, hue), probabilities of
# grey, blur (of the two views), solarization (of the two views) and mirroring, kernel of the blur.
WEAK, STRONG = (0.8, 0.4, 0.4, 0.4, 0.1), (0.8, 0.8, 0.8, 0.8, 0.2)
BYOL, MOCO_V1 = (0.8, 0.4, 0.4, 0.2, 0.1), (1, 0.4, 0.4, 0.4, 0.4)
TABLE = {
    "simclr_imagenet": ((0.08, 1), "bicubic", STRONG, 0.2, (0.5, 0.5), (0, 0), 0.5, 0.1),
    "simclr_cifar": ((0.08, 1), "bicubic", WEAK, 0.2, (0, 0), (0, 0), 0.5, 0.1),
    "moco_v1": ((0.2, 1), "bilinear", MOCO_V1, 0.2, (0, 0), (0, 0), 0.5, 0),
    "moco_v2": ((0.2, 1), "bilinear", WEAK, 0.2, (0.5, 0.5), (0, 0), 0.5, 0),
    "simsiam_cifar": ((0.2, 1), "bilinear", WEAK, 0.2, (0, 0), (0, 0), 0.5, 0),
    "npid_cifar": ((0.2, 1), "bilinear", MOCO_V1, 0.2, (0, 0), (0, 0), 0, 0),
    "swav": ((0.14, 1), "bilinear", STRONG, 0.2, (0.5, 0.5), (0, 0), 0.5, 0),
    "byol": ((0.08, 1), "bicubic", BYOL, 0.2, (1, 0.1), (0, 0.2), 0.5, 0.1),
    "moco_v3": ((0.2, 1), "bilinear", BYOL, 0.2, (1, 0.1), (0, 0.2), 0.5, 0),
    "moco_v3_vit": ((0.08, 1), "bilinear", BYOL, 0.2, (1, 0.1), (0, 0.2), 0.5, 0),
    "barlow_twins": ((0.08, 1), "bicubic", BYOL, 0.2, (1, 0.1), (0, 0.2), 0.5, 0),
    "dino": ((0.4, 1), "bicubic", BYOL, 0.2, (1, 0.1), (0, 0.2), 0.5, 0),
    "solo_symmetric": ((0.08, 1), "bicubic", STRONG, 0.2, (0.5, 0.5), (0, 0), 0.5, 0),
    "solo_symmetric_weak": ((0.08, 1), "bicubic", WEAK, 0.2, (0.5, 0.5), (0, 0), 0.5, 0),
    "solo_asymmetric": ((0.08, 1), "bicubic", BYOL, 0.2, (0, 0), (0, 0.2), 0.5, 0),
    "solo_vicreg": ((0.2, 1), "bicubic", BYOL, 0.2, (0, 0), (0.1, 0.1), 0.5, 0),
}


@pytest.mark.parametrize("name", TABLE)
def test_recipe_has_the_numbers_of_its_source(name):
    area, interpolation, jitter, gray, blur, solarize, flip, kernel = TABLE[name]
    assert len(RECIPES[name]) == 2
    for i, view in enumerate(RECIPES[name]):
        assert (view.crop_area, view.crop_aspect) == (area, (3 / 4, 4 / 3))
        assert view.interpolation == interpolation
        assert (view.jitter, view.brightness, view.contrast, view.saturation, view.hue) == jitter
        assert (view.grayscale, view.blur, view.solarize) == (gray, blur[i], solarize[i])
        assert (view.flip, view.blur_kernel, view.blur_sigma) == (flip, kernel, (0.1, 2.0))
        assert view.noise == 0


def test_every_published_recipe_is_in_the_table():
    assert RECIPES.keys() - TABLE.keys() == {"crop_flip", "digits"}


def test_recipes_of_cifar_have_32_pixels():
    small = {"simclr_cifar", "simsiam_cifar", "npid_cifar"}
    small |= {name for name in RECIPES if name.startswith("solo_")}
    for name in TABLE:
        assert {view.size for view in RECIPES[name]} == {32 if name in small else 224}
