import matplotlib.image
import numpy as np
import pytest

from ssl_jax.report import figures, files


def size(path) -> tuple[int, int]:
    """Width and height in pixels of a PNG that is not blank."""
    image = matplotlib.image.imread(path)
    assert image.std() > 0.02
    return image.shape[1], image.shape[0]


@pytest.fixture
def run(finished_run) -> files.Run:
    return files.read(finished_run)


def test_nearest_by_hand():
    # Angles 0, 10, 25 and 90 degrees; lengths must not matter, and nobody is his own neighbour.
    angle = np.deg2rad([0, 10, 25, 90])
    x = np.stack([np.cos(angle), np.sin(angle)], 1) * np.array([[1], [5], [0.1], [3]])
    assert figures.nearest(x, 2).tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]


def test_neighbours_and_their_precision(run, tmp_path):
    assert figures.neighbours(run, tmp_path / "neighbours.png")
    width, height = size(tmp_path / "neighbours.png")
    assert width == 1770
    assert 600 < height < 900
    unit = run.sample["features"] / np.linalg.norm(run.sample["features"], axis=1)[:, None]
    order = np.argsort(-(unit @ unit.T), axis=1)[:, 1:7]
    same = run.sample["label"][order] == run.sample["label"][:, None]
    assert figures.precision(run) == pytest.approx(same.mean())
    unlabelled = run.sample | {"label": np.full(30, -1)}
    assert figures.precision(run._replace(sample=unlabelled)) is None
    assert figures.neighbours(run._replace(sample=unlabelled), tmp_path / "plain.png")


def test_queries_ask_every_class_first():
    labels = np.array([1, 1, 1, 0, 0, 2])
    assert figures._queries(labels, 4) == [3, 0, 5, 4]


def test_view_grid_takes_any_sizes_and_both_ranges(tmp_path):
    rng = np.random.default_rng(0)
    originals = [rng.integers(0, 256, (h, 30, 3)).astype(np.uint8) for h in (20, 40, 80)]
    views = rng.random((3, 2, 16, 16, 3)).astype(np.float32) * 1.01  # rounding beyond 1
    figures.view_grid(originals, views, tmp_path / "a.png")
    assert size(tmp_path / "a.png") == (675, 727)
    figures.view_grid(originals, (views * 255).astype(np.uint8), tmp_path / "b.png")
    assert size(tmp_path / "b.png") == (675, 727)


@pytest.mark.parametrize(("side", "count"), [(16, 5), (8, 3), (32, 2)])
def test_local_views_are_drawn_in_proportion(tmp_path, side, count):
    """Area in the picture: that of the pixels, beside views of 20 pixels."""
    red, blue = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])
    views = np.tile(red, (3, 2, 20, 20, 1))
    local = np.tile(blue, (3, count, side, side, 1))
    figures.view_grid(np.zeros((3, 9, 9, 3), np.uint8), views, tmp_path / "a.png", local=local)
    picture = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    drawn = [(abs(picture - color).sum(-1) < 0.1).sum() for color in (red, blue)]
    assert drawn[1] / drawn[0] == pytest.approx(count * side**2 / (2 * 20**2), rel=0.05)


def test_local_views_fill_as_many_lines_as_fit():
    crops = np.arange(1, 6, dtype=np.uint8)[:, None, None, None] * np.ones((5, 4, 4, 3), np.uint8)
    two = figures._mosaic(crops, 9)
    assert two.shape == (9, 14, 3)
    assert two[0, ::5, 0].tolist() == [1, 2, 3]
    assert two[5, ::5, 0].tolist() == [4, 5, 255]
    assert (two[4] == 255).all()
    assert figures._mosaic(crops, 8).shape == (8, 24, 3)  # no room for a gap between two lines


@pytest.mark.parametrize(("count", "lines"), [(100, 10), (13, 2)])
def test_generated_images_stand_ten_in_a_row(tmp_path, count, lines):
    images = np.random.default_rng(0).random((count, 8, 8, 3))
    figures.sample_grid(images, tmp_path / "a.png")
    assert size(tmp_path / "a.png") == (1050, 105 * lines)
