"""The hash of a batch against an implementation with Python's integers."""

import jax
import numpy as np
import pytest

from ssl_jax import parallel
from ssl_jax.training.batch_hash import batch_hash

WORD = 2**32


def batch():
    rng = np.random.default_rng(0)
    return {
        "index": rng.permutation(8).astype(np.int32),
        "views": rng.random((8, 2, 3), np.float32),
        "crops": rng.integers(0, 256, (8, 5), np.uint8),
        "label": np.arange(8, dtype=np.int32),
    }


def mix(x):
    x = (x ^ x >> 16) * 0x85EBCA6B % WORD
    x = (x ^ x >> 13) * 0xC2B2AE35 % WORD
    return x ^ x >> 16


def expected(rows):
    total = 0
    for number, name in enumerate(["crops", "index", "views"]):
        words = rows[name] if rows[name].itemsize == 1 else rows[name].view(np.uint32)
        for place, word in enumerate(words.ravel().tolist()):
            total += mix(word ^ mix((place + 0x9E3779B9 * (number + 1)) % WORD))
    return total % WORD


@pytest.mark.parametrize(("devices", "fsdp"), [(1, 1), (8, 1), (8, 4)])
def test_hash_is_the_same_on_any_devices(devices, fsdp):
    mesh = parallel.make_mesh(jax.devices()[:devices], fsdp=fsdp)
    assert int(jax.jit(batch_hash)(parallel.to_global(batch(), mesh))) == expected(batch())


def test_hash_depends_on_order_pixels_and_indices_but_not_on_labels():
    rows = batch()
    swapped = {name: x[[1, 0, *range(2, 8)]] for name, x in rows.items()}
    pixel = rows | {
        "views": rows["views"] + np.eye(8, 6, dtype=np.float32).reshape(8, 2, 3) / 2**20
    }
    index = rows | {"index": rows["index"] + 1}
    relabelled = rows | {"label": rows["label"][::-1].copy()}
    hashes = [int(batch_hash(x)) for x in (rows, swapped, pixel, index)]
    assert len(set(hashes)) == 4
    assert int(batch_hash(relabelled)) == hashes[0]
