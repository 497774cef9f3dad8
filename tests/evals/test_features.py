import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.errors import BAD_DATA, NUMERIC, Fault
from ssl_jax.evals import features


def batches(n: int, size: int):
    """Yields n images whose pixels are their index, in batches padded with zeros."""
    for start in range(0, n, size):
        index = np.arange(start, start + size)
        mask = index < n
        image = np.where(mask, index, 0).astype(np.uint8)[:, None, None, None]
        label = np.where(mask, index % 3, 0).astype(np.int32)
        yield {"image": np.tile(image, (1, 2, 2, 3)), "index": index, "label": label, "mask": mask}


@jax.jit
def columns(batch):
    kept = {name: batch[name] for name in ("mask", "label", "index")}
    return kept | {"features": jnp.mean(batch["image"].astype(jnp.float32), axis=(1, 2))}


@pytest.mark.parametrize("n", [1, 8, 21, 70])  # below one batch, whole, partial, beyond IN_FLIGHT
def test_every_example_comes_once_and_in_order(n):
    collected = features.collect(columns, batches(n, 8))
    assert set(collected) == {"features", "label", "index"}
    np.testing.assert_array_equal(collected["index"], np.arange(n))
    np.testing.assert_array_equal(collected["label"], np.arange(n) % 3)
    np.testing.assert_array_equal(
        collected["features"], np.repeat(np.arange(n)[:, None], 3, axis=1)
    )


def test_batches_are_dispatched_ahead_of_the_copies_back():
    copied_after, dispatched = [], []

    class Lazy:
        def __array__(self, dtype=None, copy=None):
            copied_after.append(len(dispatched))
            return np.zeros((8, 3), np.float32)

    def fn(batch):
        dispatched.append(batch)
        return {"features": Lazy(), "mask": batch["mask"]}

    features.collect(fn, batches(80, 8))
    assert copied_after[0] == features.IN_FLIGHT + 1
    assert len(copied_after) == 10


@pytest.mark.parametrize("n", [0, -1])
def test_empty_split_is_refused(n):
    nothing = [{k: v[:0] for k, v in b.items()} for b in batches(8, 8)]
    with pytest.raises(Fault, match="no example") as fault:
        features.collect(columns, nothing if n else [])
    assert fault.value.code == BAD_DATA


def test_features_that_are_not_finite_are_counted():
    def fn(batch):
        out = columns(batch)
        return out | {"trained": jnp.where(out["features"] == 3, jnp.nan, out["features"])}

    with pytest.raises(Fault, match="1 of 21 examples have trained features") as fault:
        features.collect(fn, batches(21, 8))
    assert fault.value.code == NUMERIC
