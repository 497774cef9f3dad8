import numpy as np
import pytest

from ssl_jax.evals import saliency


def images(count=3, height=12, width=12):
    pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, 3))
    return pixels.astype(np.float32) / 255


def corner(batch):
    """Returns the top left 3 x 3 pixels as features."""
    return batch[:, :3, :3].reshape(len(batch), -1)


def test_only_the_corner_that_the_encoder_sees_is_salient():
    heat = saliency.occlusion(corner, images(), grid=4)
    assert heat.shape == (3, 4, 4)
    assert heat.dtype == np.float16
    assert (heat[:, 0, 0] > 0.05).all()
    heat[:, 0, 0] = 0
    assert not heat.any()


def test_one_cell_equals_hand_worked_value():
    image = images(1)
    x = image[0].astype(np.float64)
    covered = x.copy()
    covered[4:8, 8:12] = x.reshape(-1, 3).mean(0)
    a, b = x.ravel(), covered.ravel()
    expected = 1 - a @ b / np.sqrt(a @ a * (b @ b))
    heat = saliency.occlusion(lambda batch: batch.reshape(len(batch), -1), image, grid=3)
    assert heat[0, 1, 2] == pytest.approx(expected, rel=2e-3)  # float16


def test_all_calls_have_one_size_and_every_pixel_is_covered_once():
    sizes, missing = [], []

    def features(batch):
        sizes.append(len(batch))
        missing.extend((batch != batch[0]).any(3))
        return np.ones((len(batch), 2))

    shown = images(2, 15, 14)
    assert not saliency.occlusion(features, shown, grid=7).any()
    assert sizes == [saliency.BATCH]
    assert (np.sum(missing[1:50], axis=0) <= 1).all()
    assert np.sum(missing[1:50]) == pytest.approx(210, abs=3)  # a pixel may have the mean colour


def test_zero_features_and_tiny_pictures_are_supported():
    assert not saliency.occlusion(lambda batch: np.zeros((len(batch), 4)), images(), grid=4).any()
    assert saliency.occlusion(corner, images(1, 5, 6)).shape == (1, 2, 2)
