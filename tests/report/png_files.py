"""Reads the PNG files that a test has drawn."""

import matplotlib.image


def png_size(path) -> tuple[int, int]:
    """Returns width and height in pixels; fails if the picture is blank."""
    image = matplotlib.image.imread(path)
    assert image.std() > 0.02
    return image.shape[1], image.shape[0]
