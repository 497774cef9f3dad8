"""The picture of an image with its caption."""

import numpy as np
import pytest

from ssl_jax.inputs.pairs import picture


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((9000, 1), (224, 1)),
        ((1, 9000), (1, 224)),
        ((20, 10), (224, 112)),
        ((10, 20), (112, 224)),
        ((1, 1), (224, 224)),
    ],
)
def test_the_long_side_of_the_image_has_224_pixels(shape, image):
    drawn = picture.captioned(np.zeros((*shape, 3), np.uint8), "words")
    height, width = image
    assert drawn.dtype == np.uint8
    assert drawn.shape == (height + 24, 224, 3)  # one line of text
    assert not drawn[:height, :width].any()
    assert (drawn[:height, width:] == 255).all()
    assert (drawn[height:] < 100).any()
