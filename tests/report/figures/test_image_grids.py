import matplotlib.image
import numpy as np
import pytest
from png_files import png_size

from ssl_jax.report.figures import image_grids


def test_views_accept_any_original_size_and_both_value_ranges(tmp_path):
    rng = np.random.default_rng(0)
    originals = [rng.integers(0, 256, (h, 30, 3)).astype(np.uint8) for h in (20, 40, 80)]
    views = rng.random((3, 2, 16, 16, 3)).astype(np.float32) * 1.01  # rounding may exceed 1
    image_grids.draw_views(originals, views, tmp_path / "a.png")
    assert png_size(tmp_path / "a.png") == (675, 727)
    image_grids.draw_views(originals, (views * 255).astype(np.uint8), tmp_path / "b.png")
    assert png_size(tmp_path / "b.png") == (675, 727)


@pytest.mark.parametrize(("side", "count"), [(16, 5), (8, 3), (32, 2)])
def test_local_views_are_drawn_on_the_scale_of_the_other_views(tmp_path, side, count):
    """Compares the drawn areas with the numbers of pixels; the other views have 20 x 20."""
    red, blue = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])
    views = np.tile(red, (3, 2, 20, 20, 1))
    local = np.tile(blue, (3, count, side, side, 1))
    originals = np.zeros((3, 9, 9, 3), np.uint8)
    image_grids.draw_views(originals, views, tmp_path / "a.png", local=local)
    picture = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    drawn = [(abs(picture - color).sum(-1) < 0.1).sum() for color in (red, blue)]
    assert drawn[1] / drawn[0] == pytest.approx(count * side**2 / (2 * 20**2), rel=0.05)


def test_local_views_fill_as_many_lines_as_fit():
    crops = np.arange(1, 6, dtype=np.uint8)[:, None, None, None] * np.ones((5, 4, 4, 3), np.uint8)
    two = image_grids._mosaic(crops, 9)
    assert two.shape == (9, 14, 3)
    assert two[0, ::5, 0].tolist() == [1, 2, 3]
    assert two[5, ::5, 0].tolist() == [4, 5, 255]
    assert (two[4] == 255).all()
    one = image_grids._mosaic(crops, 8)  # 8 pixels leave no gap between two lines
    assert one.shape == (8, 24, 3)


@pytest.mark.parametrize(
    ("shape", "titles", "size"),
    [
        ((5, 10, 8, 8, 3), (), (1050, 525)),  # 0.7 inches of 150 pixels per image
        ((2, 3, 8, 8, 1), ("a", "b", "c"), (630, 469)),  # 1.4 inches, and 0.33 for the titles
    ],
)
def test_a_grid_has_a_square_for_each_image(tmp_path, shape, titles, size):
    images = np.random.default_rng(0).random(shape)
    image_grids.draw_grid(images, tmp_path / "a.png", titles)
    assert png_size(tmp_path / "a.png") == size
