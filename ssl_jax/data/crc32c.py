"""The checksum of TFRecord files, vectorised in NumPy: neither Python nor TensorFlow exposes one.

A CRC is linear: it is the exclusive or of what each byte contributes, and a byte's contribution
depends only on its value and its distance from the end. So a block of bytes is one table look-up.
"""

import functools

import numpy as np

_BLOCK = 512  # bytes; its table of 512 KiB stays in a core's cache
_ROWS = 32  # blocks in one look-up, for the same reason


@functools.cache
def _table() -> np.ndarray:
    """uint32 [_BLOCK, 256]: the contribution of each byte value, by its position in a block."""
    byte = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        byte = np.where(byte & 1, (byte >> 1) ^ np.uint32(0x82F63B78), byte >> 1)
    rows = [byte]
    for _ in range(_BLOCK - 1):
        rows.append((rows[-1] >> np.uint32(8)) ^ byte[rows[-1] & 0xFF])
    return np.stack(rows[::-1])


@functools.cache
def _look_up() -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """The flat table, the offset of each position, and the four rows that advance a state."""
    table = _table()
    return table.ravel(), np.arange(_BLOCK) * 256, [row.tolist() for row in table[:4]]


def crc32c(data: bytes) -> int:
    """Returns the CRC-32C (Castagnoli, reflected, as in RFC 3720) of at least four bytes."""
    flat, offset, advance = _look_up()
    raw = np.frombuffer(data, np.uint8)
    pad = -len(raw) % _BLOCK  # leading zeros leave a zero state as it is
    padded = np.zeros(pad + len(raw), np.uint8)
    padded[pad:] = raw
    padded[pad : pad + 4] ^= 0xFF  # the initial state
    blocks = padded.reshape(-1, _BLOCK)
    state = 0
    for first in range(0, len(blocks), _ROWS):
        terms = flat.take(offset + blocks[first : first + _ROWS])
        for term in np.bitwise_xor.reduce(terms, axis=1).tolist():
            a, b, c, d = (advance[k][state >> (8 * k) & 0xFF] for k in range(4))
            state = a ^ b ^ c ^ d ^ term
    return state ^ 0xFFFFFFFF


def crc32c_of_words(words: np.ndarray) -> np.ndarray:
    """Returns the CRC-32C, uint32 [n], of each of n little-endian 64-bit words."""
    last = _table()[-8:]
    octets = words.astype("<u8").view(np.uint8).reshape(-1, 8).copy()
    octets[:, :4] ^= 0xFF
    terms = last[np.arange(8), octets]
    return np.bitwise_xor.reduce(terms, axis=1) ^ np.uint32(0xFFFFFFFF)


def mask(crc: np.ndarray | int) -> np.ndarray:
    """The form in which TFRecord stores a checksum (uint32 or int): rotated, plus a constant."""
    wide = np.asarray(crc, np.uint64)
    rotated = (wide >> np.uint64(15)) | (wide << np.uint64(17))
    return ((rotated + np.uint64(0xA282EAD8)) & np.uint64(0xFFFFFFFF)).astype(np.uint32)
