"""TFRecord files of TensorFlow's writer, files written by hand, and damaged files."""

import struct

import numpy as np
import pytest

from ssl_jax.data.tfrecord import Records
from ssl_jax.errors import BAD_DATA, MISSING_INPUT, Fault

DATA = [np.random.default_rng(i).bytes(20 + 37 * i) for i in range(12)]
COUNTS = (7, 5)


@pytest.fixture
def shards(tmp_path):
    """Two shards written by TensorFlow."""
    import tensorflow as tf

    paths, start = [], 0
    for i, count in enumerate(COUNTS):
        paths.append(tmp_path / f"x.tfrecord-0000{i}-of-00002")
        with tf.io.TFRecordWriter(str(paths[-1])) as writer:
            for data in DATA[start : start + count]:
                writer.write(data)
        start += count
    return paths


def start(record):
    """Returns the offset of the header of a record of the first shard."""
    return sum(16 + len(data) for data in DATA[:record])


def flip(path, byte):
    data = bytearray(path.read_bytes())
    data[byte] ^= 4
    path.write_bytes(data)


def assert_refused(code, pattern, shards, counts=COUNTS):
    with pytest.raises(Fault, match=pattern) as caught:
        Records(shards, counts)
    assert caught.value.code == code


def test_reads_every_record(shards):
    records = Records(shards, COUNTS)
    assert len(records) == 12
    for i in np.random.default_rng(0).permutation(12):
        assert records.read(int(i)) == DATA[i]
        assert records.read(int(i)) == DATA[i]
    assert records.describe(0) == "x.tfrecord-00000-of-00002 record 0"
    assert records.describe(7) == "x.tfrecord-00001-of-00002 record 0"
    assert records.describe(11) == "x.tfrecord-00001-of-00002 record 4"


@pytest.mark.parametrize("byte", [0, 5, 7, 8, 11])
def test_flipped_bit_in_header_is_refused(shards, byte):
    flip(shards[0], start(4) + byte)
    pattern = "x.tfrecord-00000-of-00002: record 4 is damaged.* expected 7"
    assert_refused(BAD_DATA, pattern, shards)


@pytest.mark.parametrize("byte", [12, 30, -1])
def test_flipped_bit_in_data_spoils_one_record(shards, byte):
    flip(shards[0], start(4) + byte if byte > 0 else start(5) - 1)
    records = Records(shards, COUNTS)
    for _ in range(2):
        with pytest.raises(ValueError, match="checksum"):
            records.read(4)
    assert [records.read(i) for i in range(12) if i != 4] == DATA[:4] + DATA[5:]


@pytest.mark.parametrize(
    ("size", "pattern"),
    [
        (start(4) + 5, "cut in record 4"),
        (start(4) + 12, "cut in record 4"),
        (start(5) - 1, "cut in record 4"),
        (start(4), "holds only 4 records; expected 7"),
        (0, "empty .0 bytes.; expected 7"),
    ],
)
def test_truncated_shard_is_refused(shards, size, pattern):
    shards[0].write_bytes(shards[0].read_bytes()[:size])
    assert_refused(BAD_DATA, pattern, shards)


def test_shard_with_more_records_than_expected_is_refused(shards):
    assert_refused(BAD_DATA, "00001-of-00002: it holds more records; expected 4", shards, (7, 4))


def test_missing_shard_is_refused(shards):
    shards[1].unlink()
    assert_refused(MISSING_INPUT, "00001-of-00002 is missing; it must hold 5", shards)


def test_reads_more_shards_than_descriptors_stay_open(shards, monkeypatch):
    monkeypatch.setattr("ssl_jax.data.tfrecord._OPEN_FILES", 1)
    records = Records(shards, COUNTS)
    assert [records.read(i) for i in (0, 11, 1, 10)] == [DATA[i] for i in (0, 11, 1, 10)]


# Checksums. The oracle divides bit by bit, and TFRecord's mask is written out.


def crc32c(data):
    """CRC-32C (Castagnoli, reflected, RFC 3720) by division, one bit at a time."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def mask(crc):
    rotated = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
    return (rotated + 0xA282EAD8) % 2**32


def record(length, data, crc):
    """The bytes of a record that claims `length` bytes of data with the checksum `crc`."""
    header = struct.pack("<Q", length)
    return header + struct.pack("<I", mask(crc32c(header))) + data + struct.pack("<I", mask(crc))


@pytest.mark.parametrize(
    ("data", "crc"),
    [  # RFC 3720, B.4, and the check value of the catalogue of CRCs
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
    ],
)
def test_checksum_has_the_published_values(tmp_path, data, crc):
    (tmp_path / "x").write_bytes(record(len(data), data, crc) + record(len(data), data, crc ^ 1))
    records = Records([tmp_path / "x"], [2])
    assert records.read(0) == data
    with pytest.raises(ValueError, match="checksum"):
        records.read(1)


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 511, 512, 513, 987, 1024, 16384, 16385, 40000])
def test_checksum_equals_bit_by_bit_division(tmp_path, length):
    data = np.random.default_rng(length).bytes(length)
    (tmp_path / "x").write_bytes(record(length, data, crc32c(data)))
    assert Records([tmp_path / "x"], [1]).read(0) == data


@pytest.mark.parametrize("length", [1, 987, 2**40, 2**63 + 12345, 2**64 - 1])
def test_length_beyond_the_end_of_the_file_is_refused(tmp_path, length):
    """The length is wrong, but its checksum is right."""
    (tmp_path / "x").write_bytes(record(0, b"", 0) + record(length, b"", 0))
    assert_refused(BAD_DATA, "cut in record 1, which ends after byte 32", [tmp_path / "x"], [2])
