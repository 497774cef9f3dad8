"""The order of examples: a bijection with frozen bits that passes statistical tests."""

import hashlib

import numpy as np
import pytest

from ssl_jax.data.order import shuffle


def permutation(size, seed=3, epoch=0, first=None):
    n = first or size
    position = np.arange(n, dtype=np.int64)
    return shuffle(position, seed=seed, epoch=np.full(n, epoch), size=size)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 63, 64, 65, 1000, 1281167])
def test_shuffle_is_a_bijection(size):
    index = permutation(size)
    assert index.dtype == np.int64
    np.testing.assert_array_equal(np.sort(index), np.arange(size))


def test_shuffle_has_frozen_bits():
    index = np.concatenate([permutation(50000, seed=42, epoch=e, first=512) for e in range(3)])
    digest = hashlib.sha256(index.astype("<i8").tobytes()).hexdigest()
    # With other bits, every existing run would resume on other data: fix the code, not the test.
    assert digest[:32] == "936886f3be2f7cc8c7d9ed844a655984"
    assert permutation(10, seed=0).tolist() == [5, 9, 6, 7, 3, 2, 1, 4, 0, 8]


def test_shuffle_accepts_several_epochs_in_one_call():
    epoch = np.array([0, 1, 0, 1])
    mixed = shuffle(np.array([5, 5, 6, 6]), seed=9, epoch=epoch, size=100)
    assert mixed.tolist() == [
        *(permutation(100, seed=9, epoch=e)[p] for p, e in [(5, 0), (5, 1), (6, 0), (6, 1)])
    ]


def test_shuffle_of_large_sizes_does_not_overflow():
    size = 2**33 + 7
    position = np.array([0, 2**32, size - 1])
    index = shuffle(position, seed=2**63 + 5, epoch=np.full(3, 10**6), size=size)
    assert len(set(index.tolist())) == 3
    assert (index >= 0).all()
    assert (index < size).all()
    assert (index > 2**32).any()


def test_shuffle_looks_random():
    """Epochs, seeds and lags do not correlate. Batches of data sorted by class are balanced."""
    size = 20000
    orders = [permutation(size, seed=s, epoch=e) for s, e in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    noise = 4 / np.sqrt(size)
    for i, a in enumerate(orders):
        for b in orders[:i]:
            assert abs(np.corrcoef(a, b)[0, 1]) < noise
        for lag in (1, 2, 4, 16, 64, 256, 1024):
            assert abs(np.corrcoef(a[lag:], a[:-lag])[0, 1]) < noise
    counts = [np.bincount(permutation(size, seed=s, first=200) // 2000) for s in range(300)]
    chi_square = ((np.array(counts) - 20) ** 2 / 20).sum(1)
    assert abs(chi_square.mean() - 9) < 1  # standard error sqrt(18 / 300) = 0.25
