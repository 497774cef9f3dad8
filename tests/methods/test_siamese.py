"""Siamese networks pass each loss its own options."""

import jax
import jax.numpy as jnp
import linear
import numpy as np
import pytest
import tiny

from configs.siamese import get_config
from ssl_jax import losses
from ssl_jax.methods import Run, siamese

B = 6
Z = jnp.asarray(np.random.default_rng(3).normal(size=(B, 2, 4)), jnp.float32)


def make(**options):
    return siamese.make(linear.Linear(), Run(tiny.seen(2, 2), 5, B, 16), output_dim=4, **options)


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        ({"loss": "margin", "margin": 2.0}, lambda z: losses.margin_contrastive(z, margin=2.0)),
        ({"margin": 0.5, "mining": "all"}, lambda z: losses.triplet(z, margin=0.5, mining="all")),
        (
            {"loss": "symmetric_triplet", "margin": 0.5, "mining": "batch_hard"},
            lambda z: losses.symmetric_triplet(z, margin=0.5, mining="batch_hard"),
        ),
    ],
)
def test_a_loss_has_its_options(options, loss):
    value, _ = make(**options).objective({}, {}, {"z": Z}, jax.random.key(0), 0)
    assert value == loss(Z)[0]


def test_the_symmetric_loss_trains():
    history, _ = linear.trajectory(make(loss="symmetric_triplet"), linear.batches(1, B) * 20)
    first, last = (float(history[i][1]["loss"]) for i in (0, -1))
    assert last < first


def test_the_symmetric_variant_has_the_loss():
    method = get_config("cifar10_symmetric").method
    assert (method.loss, method.mining) == ("symmetric_triplet", "batch_hard")
    assert get_config("cifar10").method.loss == "triplet"


def test_an_unknown_loss_lists_the_losses():
    with pytest.raises(ValueError, match="choose one of: margin, triplet, symmetric_triplet"):
        make(loss="quadruplet")
