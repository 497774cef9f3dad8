import numpy as np
import pytest

from ssl_jax.data.crc32c import crc32c, crc32c_of_words, mask


@pytest.mark.parametrize(
    ("data", "crc"),
    [  # RFC 3720, B.4, and the check value of the catalogue of CRCs
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
    ],
)
def test_published_values(data, crc):
    assert crc32c(data) == crc


@pytest.mark.parametrize("length", [4, 5, 511, 512, 513, 1024, 16384, 16385, 40000])
def test_equals_bit_by_bit_division(length):
    data = np.random.default_rng(length).integers(0, 256, length, dtype=np.uint8).tobytes()
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    assert crc32c(data) == state ^ 0xFFFFFFFF


def test_words():
    words = np.array([0, 1, 987, 2**63 + 12345], np.uint64)
    expected = [crc32c(word.astype("<u8").tobytes()) for word in words]
    assert crc32c_of_words(words).tolist() == expected


def test_mask():
    crc = np.array([0, 1, 0xFFFFFFFF, 0x12345678], np.uint32)
    rotated = [((int(c) >> 15) | (int(c) << 17)) & 0xFFFFFFFF for c in crc]
    assert mask(crc).tolist() == [(r + 0xA282EAD8) % 2**32 for r in rotated]
