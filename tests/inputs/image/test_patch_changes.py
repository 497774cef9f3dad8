"""Random changes of single patches, against NumPy and the executor of whole views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.inputs.image.patches import PatchChanges, augment

N, ROWS, COLUMNS, SIDE = 40, 2, 3, 6
PATCHES = np.random.default_rng(0).uniform(0.1, 0.4, (N, ROWS, COLUMNS, SIDE, SIDE, 3))
PATCHES = PATCHES.astype(np.float32)
INDEX = jnp.arange(N, dtype=jnp.int32)
KEY = jax.random.key(3)
EACH = N * ROWS * COLUMNS


def changed(patches=PATCHES, index=INDEX, key=KEY, **changes):
    return np.asarray(augment(jnp.asarray(patches), PatchChanges(**changes), key, index))


def by_patch(x):
    return x.reshape(-1, SIDE, SIDE, x.shape[-1])


def test_no_changes_return_the_patches():
    np.testing.assert_array_equal(changed(), PATCHES)


@pytest.mark.parametrize("channels", [1, 3])
def test_crops_come_from_every_place_and_are_centred_in_grey(channels):
    patches = PATCHES[..., :channels]
    places = []
    for before, after in zip(by_patch(patches), by_patch(changed(patches, crop=3)), strict=True):
        inner = after[1:4, 1:4]
        frame = np.ones((SIDE, SIDE), bool)
        frame[1:4, 1:4] = False
        assert np.all(after[frame] == 0.5)
        found = [
            (i, j)
            for i in range(4)
            for j in range(4)
            if np.array_equal(before[i : i + 3, j : j + 3], inner)
        ]
        assert len(found) == 1
        places += found
    counts = np.bincount([4 * i + j for i, j in places], minlength=16)
    assert counts.min() > 0
    assert counts.max() < 4 * EACH / 16


def test_color_drop_keeps_one_random_channel():
    after = by_patch(changed(color_drop=0.5))
    kept = [
        tuple(np.array_equal(a[..., c], b[..., c]) for c in range(3))
        for a, b in zip(after, by_patch(PATCHES), strict=True)
    ]
    single = {(True, False, False), (False, True, False), (False, False, True)}
    assert set(kept) == single | {(True, True, True)}
    assert 0.35 < kept.count((True, True, True)) / EACH < 0.65
    dropped = [
        a[..., c] for a, which in zip(after, kept, strict=True) for c in range(3) if not which[c]
    ]
    assert np.all(np.stack(dropped) == 0.5)


def test_grayscale_has_the_weights_of_rec_601():
    after, before = by_patch(changed(grayscale=0.5)), by_patch(PATCHES)
    grey = before @ np.float32([0.2989, 0.587, 0.114])
    is_grey = np.all(np.isclose(after, grey[..., None], atol=1e-6), axis=(1, 2, 3))
    np.testing.assert_array_equal(after[~is_grey], before[~is_grey])
    assert 0.35 < is_grey.mean() < 0.65


def test_jitter_changes_a_share_of_the_patches_and_stays_in_range():
    after, before = by_patch(changed(jitter=0.5)), by_patch(PATCHES)
    same = np.all(after == before, axis=(1, 2, 3))
    assert 0.35 < same.mean() < 0.65
    assert after.min() >= 0
    assert after.max() <= 1
    gains = after[~same].mean((1, 2, 3)) / before[~same].mean((1, 2, 3))
    assert len(np.unique(gains.round(4))) > 0.9 * len(gains)
    assert np.all(np.abs(gains - 1) < 0.5)  # brightness alone is at most 32 / 255


def test_random_numbers_belong_to_the_example_and_the_key():
    changes = {"crop": 2, "jitter": 0.8, "grayscale": 0.2, "color_drop": 0.3}
    whole = changed(**changes)
    part = changed(PATCHES[7:9], INDEX[7:9], **changes)
    np.testing.assert_allclose(part, whole[7:9], atol=1e-6)
    assert np.any(changed(key=jax.random.key(4), **changes) != whole)


def test_float64_is_kept():
    with jax.enable_x64(True):
        after = augment(
            jnp.asarray(PATCHES, jnp.float64),
            PatchChanges(2, 0.8, 0.2, 0.3),
            jax.random.key(3),
            jnp.arange(N, dtype=jnp.int32),
        )
    assert after.dtype == np.float64
