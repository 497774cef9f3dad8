"""Noise: its statistics, and that each example has noise of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ssl_jax.methods import _corruption

N, D = 64, 2500
X = np.random.default_rng(0).random((N, D)) * 0.8 + 0.1  # neither 0 nor 1


def corrupt(noise, level, index=None, x=X):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.key(1), np.arange(N) if index is None else index
    )
    with jax.enable_x64(True):
        noisy, corrupted = _corruption.corrupt(keys, jnp.asarray(x), noise, level)
    assert noisy.dtype == x.dtype
    return np.asarray(noisy), np.asarray(corrupted)


def test_gaussian_noise_is_normal_in_every_component():
    noisy, corrupted = corrupt("gaussian", 0.3)
    assert corrupted.all()
    noise = (noisy - X) / 0.3
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(noise) - np.eye(N)).max() < 5 / np.sqrt(D)  # between examples


@pytest.mark.parametrize("level", [0.1, 0.4])
@pytest.mark.parametrize("noise", ["masking", "salt_and_pepper"])
def test_a_fraction_of_the_components_is_replaced(noise, level):
    noisy, corrupted = corrupt(noise, level)
    np.testing.assert_array_equal(noisy[~corrupted], X[~corrupted])
    count = corrupted.sum()
    assert scipy.stats.binomtest(int(count), N * D, level).pvalue > 1e-3
    # The number of corrupted components of an example varies like a binomial variable.
    spread = corrupted.sum(1).var(ddof=1) / (D * level * (1 - level))
    assert 0.5 < spread < 1.7
    if noise == "masking":
        assert (noisy[corrupted] == 0).all()
    else:
        salt = noisy[corrupted] == 1
        assert (salt | (noisy[corrupted] == 0)).all()
        assert scipy.stats.binomtest(int(salt.sum()), int(count), 0.5).pvalue > 1e-3
    both = (corrupted[0::2] & corrupted[1::2]).sum()  # pairs of examples
    assert scipy.stats.binomtest(int(both), N * D // 2, level**2).pvalue > 1e-3


@pytest.mark.parametrize("noise", _corruption.NOISES)
def test_noise_of_an_example_depends_only_on_its_index(noise):
    noisy, _ = corrupt(noise, 0.3)
    order = np.random.default_rng(2).permutation(N)
    shuffled, _ = corrupt(noise, 0.3, order, X[order])
    np.testing.assert_array_equal(shuffled, noisy[order])
    part, _ = corrupt(noise, 0.3, np.arange(5, 9), X[5:9])
    np.testing.assert_array_equal(part, noisy[5:9])


@pytest.mark.parametrize("noise", _corruption.NOISES)
def test_level_0_changes_nothing(noise):
    np.testing.assert_array_equal(corrupt(noise, 0.0)[0], X)


@pytest.mark.parametrize(
    ("noise", "level", "message"),
    [
        ("speckle", 0.1, "noise must be one of gaussian, masking, salt_and_pepper; got 'speckle'"),
        ("masking", 1.1, r"noise_level of masking noise must be a fraction in \[0, 1\], got 1.1"),
        ("gaussian", -0.1, "noise_level of gaussian noise must be at least 0, got -0.1"),
        ("gaussian", float("nan"), "got nan"),
    ],
)
def test_impossible_noise_is_refused(noise, level, message):
    with pytest.raises(ValueError, match=message):
        _corruption.check_noise(noise, level)
