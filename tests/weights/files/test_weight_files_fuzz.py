"""Tests with random damage: `files.read` refuses a file, or returns tensors that fit its header."""

import time

import handmade
import numpy as np
import pytest

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.weights import files

TRIES = 300


def damage(data, rng):
    """Replaces 1 to 8 bytes, flips one bit, cuts the end, cuts a part, or doubles a part."""
    data = bytearray(data)
    start, end = sorted(rng.integers(0, len(data), 2))
    match rng.integers(0, 5):
        case 0:
            for at in rng.integers(0, len(data), rng.integers(1, 9)):
                data[at] = rng.integers(0, 256)
        case 1:
            data[start] ^= 1 << rng.integers(0, 8)
        case 2:
            del data[end:]
        case 3:
            del data[start:end]
        case _:
            data[start:start] = data[start:end]
    return bytes(data)


def header_length(kind, data):
    """Returns the length of the part that describes the tensors, where damage has most effect."""
    if kind == "safetensors":
        return 8 + int.from_bytes(data[:8], "little")
    start = data.find(handmade.arrays()["conv.weight"].tobytes())
    return start if start > 0 else len(data)  # data are compressed or encoded as text


def read_or_fault(path):
    """Returns (arrays, None) or (None, Fault)."""
    try:
        return files.read(path).arrays, None
    except Fault as fault:
        return None, fault


@pytest.mark.parametrize("where", ["anywhere", "head"])
@pytest.mark.parametrize("kind", handmade.VALID)
def test_damaged_files_are_refused_or_consistent(tmp_path, kind, where):
    good = handmade.VALID[kind]()
    shapes = {array.shape for array in handmade.arrays().values()}
    head = header_length(kind, good) if where == "head" else len(good)
    rng = np.random.default_rng([*kind.encode(), *where.encode()])
    path = tmp_path / "x"
    refused = 0
    for attempt in range(TRIES):
        data = damage(good[:head], rng) + good[head:]
        path.write_bytes(data)
        start = time.process_time()
        arrays, fault = read_or_fault(path)
        assert time.process_time() - start < 1
        if fault is not None:
            refused += 1
            assert fault.code == BAD_DATA, f"try {attempt}: {fault}"
            assert str(fault).isprintable()
            continue
        for name, array in arrays.items():
            assert array.dtype.kind in "fiub" or array.dtype.name == "bfloat16"
            assert array.shape in shapes or array.dtype.itemsize not in (4, 8), (attempt, name)
            assert np.isfinite(array).all()
    assert refused > TRIES / 20
