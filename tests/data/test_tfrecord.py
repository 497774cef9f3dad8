import numpy as np
import pytest

from ssl_jax.data.tfrecord import Records
from ssl_jax.errors import BAD_DATA, MISSING_INPUT, Fault

DATA = [np.random.default_rng(i).bytes(20 + 37 * i) for i in range(12)]
COUNTS = (7, 5)


@pytest.fixture
def shards(tmp_path):
    """Two shards by TensorFlow's own writer."""
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
    """Where the header of a record of the first shard starts."""
    return sum(16 + len(data) for data in DATA[:record])


def flip(path, byte):
    data = bytearray(path.read_bytes())
    data[byte] ^= 4
    path.write_bytes(data)


def fault(code, pattern, shards, counts=COUNTS):
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
def test_flipped_bit_in_a_header(shards, byte):
    flip(shards[0], start(4) + byte)
    fault(BAD_DATA, "x.tfrecord-00000-of-00002: record 4 is damaged.* expected 7", shards)


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
def test_truncated(shards, size, pattern):
    shards[0].write_bytes(shards[0].read_bytes()[:size])
    fault(BAD_DATA, pattern, shards)


def test_more_records_than_expected(shards):
    fault(BAD_DATA, "00001-of-00002: it holds more records; expected 4", shards, (7, 4))


def test_missing_shard(shards):
    shards[1].unlink()
    fault(MISSING_INPUT, "00001-of-00002 is missing; it must hold 5", shards)


def test_more_shards_than_open_files(shards, monkeypatch):
    monkeypatch.setattr("ssl_jax.data.tfrecord._OPEN_FILES", 1)
    records = Records(shards, COUNTS)
    assert [records.read(i) for i in (0, 11, 1, 10)] == [DATA[i] for i in (0, 11, 1, 10)]
