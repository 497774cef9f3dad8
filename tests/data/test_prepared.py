"""Prepared TFDS datasets: a tiny one written here, damaged copies of it, and real CIFAR-10."""

import io
import json
import sys
import threading
import time
import types

import numpy as np
import pytest
from PIL import Image

from ssl_jax.data import prepared, sources
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, MISSING_INPUT, Fault

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 8, 10, 3), dtype=np.uint8)
COUNTS = (5, 4)
LABEL = {"label": ("ant", "bee", "cat")}
COLOUR = {"colour": ("red", "blue")}


def example(i):
    """Returns a serialised example. Example 4 lacks `colour`."""
    import tensorflow as tf

    buffer = io.BytesIO()
    Image.fromarray(PIXELS[i]).save(buffer, "PNG")
    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[buffer.getvalue()]))

    def class_label(*value):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=value))

    colour = class_label(*[i % 2] * (i != 4))
    features = tf.train.Features(
        feature={"image": image, "label": class_label(i % 3), "colour": colour}
    )
    return tf.train.Example(features=features).SerializeToString()


def write(root, kind="tfrecord", image="image", label="class_label", fields=LABEL):
    """Writes root/tiny/1.0.0 as TensorFlow Datasets would.

    Args:
      kind: "tfrecord" or "array_record".
      image: name of the image feature.
      label: "class_label", or "text" for a text feature instead.
      fields: class names of each class label.
    """
    import tensorflow as tf

    folder = root / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    package = "tensorflow_datasets.core.features"
    features = {
        image: {
            "pythonClassName": f"{package}.image_feature.Image",
            "image": {
                "dtype": "uint8",
                "encodingFormat": "png",
                "shape": {"dimensions": [-1, -1, 3]},
            },
        },
    }
    for name, classes in fields.items():
        features[name] = {
            "pythonClassName": f"{package}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(len(classes))},
        }
    if label == "text":
        features["label"] = {"pythonClassName": f"{package}.text_feature.Text", "text": {}}
    json_features = {
        "pythonClassName": f"{package}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
    split = {
        "name": "train",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "numBytes": "1",
        "shardLengths": [str(n) for n in COUNTS],
    }
    empty = {**split, "name": "none", "shardLengths": ["0"]}
    info = {"name": "tiny", "version": "1.0.0", "fileFormat": kind, "splits": [split, empty]}
    (folder / "features.json").write_text(json.dumps(json_features))
    (folder / "dataset_info.json").write_text(json.dumps(info))
    for name, classes in fields.items():
        (folder / f"{name}.labels.txt").write_text("\n".join(classes) + "\n")
    first = 0
    for shard, count in enumerate(COUNTS):
        path = str(folder / f"tiny-train.{kind}-0000{shard}-of-00002")
        if kind == "tfrecord":
            writer = tf.io.TFRecordWriter(path)
        else:
            from array_record.python.array_record_module import ArrayRecordWriter

            writer = ArrayRecordWriter(path, "group_size:1")
        for i in range(first, first + count):
            writer.write(example(i))
        writer.close()
        first += count
    return folder


def get(name, root, split="train", **options):
    return sources.open_source(f"tfds:{name}", data_dir=str(root), split=split, **options)


def assert_fault(code, pattern, name, root, split="train"):
    with pytest.raises(Fault, match=pattern) as caught:
        get(name, root, split)
    assert caught.value.code == code


@pytest.mark.parametrize("kind", ["tfrecord", "array_record"])
@pytest.mark.parametrize("name", ["tiny", "tiny:1.0.0"])
def test_every_example_is_read(tmp_path, kind, name):
    write(tmp_path, kind)
    source = get(name, tmp_path)
    assert (source.size, source.classes) == (9, ("ant", "bee", "cat"))
    for i in (8, 3, 5, 0, 1, 2, 4, 6, 7):
        record, labels = source.load(i)
        image, label = record["image"], labels["label"]
        np.testing.assert_array_equal(image, PIXELS[i])
        assert label == source.read_label(i) == i % 3
    assert source.describe(5) == f"tiny-train.{kind}-00001-of-00002 record 0"


@pytest.mark.parametrize("kind", ["tfrecord", "array_record"])
def test_damaged_record_leaves_the_others_readable(tmp_path, kind):
    path = write(tmp_path, kind) / f"tiny-train.{kind}-00000-of-00002"
    data = bytearray(path.read_bytes())
    damaged = example(2)
    middle = len(damaged) // 2  # within the pixels, which are random
    data[data.index(damaged[middle : middle + 20])] ^= 1
    path.write_bytes(data)
    source = get("tiny", tmp_path)
    with pytest.raises(ValueError, match="damaged"):
        source.load(2)
    for i in (0, 1, 3, 4, 5, 8):
        np.testing.assert_array_equal(source.load(i)[0]["image"], PIXELS[i])


@pytest.mark.parametrize("kind", ["tfrecord", "array_record"])
@pytest.mark.parametrize("fraction", [0, 0.5, 0.999])
def test_truncated_shard_is_refused(tmp_path, kind, fraction):
    path = write(tmp_path, kind) / f"tiny-train.{kind}-00001-of-00002"
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
    assert_fault(BAD_DATA, f"{path}: .*expected 4 records", "tiny", tmp_path)


@pytest.mark.parametrize(
    ("kind", "code"), [("tfrecord", MISSING_INPUT), ("array_record", BAD_DATA)]
)
def test_missing_shard_is_refused(tmp_path, kind, code):
    path = write(tmp_path, kind) / f"tiny-train.{kind}-00001-of-00002"
    path.unlink()
    assert_fault(code, f"{path}", "tiny", tmp_path)


def test_dataset_without_class_labels_has_no_labels(tmp_path):
    write(tmp_path, label="text")
    source = get("tiny", tmp_path)
    assert source.classes == ()
    assert source.label(source.load(1)[1]) == source.read_label(1) == -1


@pytest.mark.parametrize("kind", ["tfrecord", "array_record"])
def test_each_class_label_is_a_label_field(tmp_path, kind):
    write(tmp_path, kind, fields=COLOUR | LABEL)
    default, colour = (get("tiny", tmp_path, label=field) for field in ("", "colour"))
    assert default.class_names == colour.class_names == COLOUR | LABEL
    assert default.label_field == "label"  # not the first field
    assert default.classes == LABEL["label"]
    assert colour.classes == COLOUR["colour"]
    for i in range(9):
        wanted = {"label": i % 3, "colour": -1 if i == 4 else i % 2}
        assert default.load(i)[1] == colour.read_labels(i) == wanted
        assert default.read_label(i) == wanted["label"]
        assert colour.read_label(i) == colour.label(colour.load(i)[1]) == wanted["colour"]


def test_data_without_a_field_called_label_are_unlabelled_until_data_label_names_one(tmp_path):
    """A dataset without a field "label" has no default label; --data.label chooses one."""
    write(tmp_path, fields=COLOUR)
    source = get("tiny", tmp_path)
    assert (source.label_field, source.classes) == ("", ())
    assert source.read_label(1) == source.label(source.load(1)[1]) == -1
    assert get("tiny", tmp_path, label="colour").label_field == "colour"


def test_unknown_label_field_is_refused_and_the_known_ones_are_named(tmp_path):
    write(tmp_path, fields=COLOUR | LABEL)
    pattern = r"data\.label='size': tfds:tiny has no label.*: (colour, label|label, colour)"
    with pytest.raises(Fault, match=pattern) as caught:
        get("tiny", tmp_path, label="size")
    assert caught.value.code == BAD_CONFIG


@pytest.mark.parametrize("channels", [1, 4])
def test_images_are_decoded_to_the_channels_of_the_config(tmp_path, channels):
    write(tmp_path)
    source = get("tiny", tmp_path, channels=channels)
    assert source.record["image"][1] == (None, None, channels)
    image = source.load(3)[0]["image"]
    assert image.shape == (8, 10, channels)
    if channels == 4:
        np.testing.assert_array_equal(image[..., :3], PIXELS[3])
        assert (image[..., 3] == 255).all()


def test_dataset_without_images_is_refused(tmp_path):
    write(tmp_path, image="picture")
    assert_fault(BAD_DATA, "no feature 'image', only: .*picture", "tiny", tmp_path)


def test_missing_and_empty_splits_are_refused(tmp_path):
    write(tmp_path)
    assert_fault(
        MISSING_INPUT, "no split 'test'; available splits: .*train", "tiny", tmp_path, "test"
    )
    assert_fault(BAD_DATA, "'none' is empty", "tiny", tmp_path, "none")


@pytest.mark.parametrize("kind", ["tfrecord", "array_record"])
@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("train[3:7]", [3, 4, 5, 6]),
        ("train[6:]", [6, 7, 8]),
        ("train[:33%]", [0, 1, 2]),
        ("train[7:]+train[:2]", [7, 8, 0, 1]),
    ],
)
def test_slices_of_a_split_hold_their_rows(tmp_path, kind, split, rows):
    write(tmp_path, kind)
    source = get("tiny", tmp_path, split)
    assert source.size == len(rows)
    for i, row in enumerate(rows):
        record, labels = source.load(i)
        image, label = record["image"], labels["label"]
        np.testing.assert_array_equal(image, PIXELS[row])
        assert label == row % 3
    shard, record = (0, rows[0]) if rows[0] < 5 else (1, rows[0] - 5)
    assert source.describe(0) == f"tiny-train.{kind}-0000{shard}-of-00002 record {record}"


def test_identity_depends_on_the_rows_and_the_sizes_of_shards_but_not_on_the_place(
    tmp_path, monkeypatch
):
    write(tmp_path / "a")
    whole = get("tiny", tmp_path / "a").identity()
    splits = ("train[:7]", "train[1:8]", "train[7:]+train[:2]")
    assert len({whole, *(get("tiny", tmp_path / "a", split).identity() for split in splits)}) == 4
    (tmp_path / "a").rename(tmp_path / "b")
    assert get("tiny", tmp_path / "b").identity() == whole
    monkeypatch.setattr(sys.modules[__name__], "PIXELS", np.zeros_like(PIXELS))
    write(tmp_path / "c")
    assert get("tiny", tmp_path / "c").identity() != whole


@pytest.mark.parametrize("split", ["train[:100]", "train[2:1", "train[:0]"])
def test_invalid_slices_are_refused(tmp_path, split):
    write(tmp_path)
    with pytest.raises(Fault, match="train"):
        get("tiny", tmp_path, split)


def test_without_a_folder_the_one_of_tfds_is_read(tmp_path, monkeypatch):
    write(tmp_path / "by_variable")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "by_variable"))
    assert get("tiny", "").size == 9
    monkeypatch.setenv("HOME", str(tmp_path))
    assert get("tiny", "~/by_variable").size == 9
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("TFDS_DATA_DIR")
        else:
            monkeypatch.setenv("TFDS_DATA_DIR", value)
        assert_fault(MISSING_INPUT, f"'tiny' is not in {tmp_path}/tensorflow_datasets", "tiny", "")
    write(tmp_path / "tensorflow_datasets")
    assert get("tiny", "").size == 9


def test_largest_image_is_a_choice(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match=r"80 pixels are more than data\.max_megapixels=7e-05"):
        get("tiny", tmp_path, max_megapixels=7e-5).load(0)


def test_missing_dataset_without_network_names_the_command_in_seconds(tmp_path, monkeypatch):
    import tensorflow_datasets  # noqa: F401  (excludes its import from the time)

    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    start = time.monotonic()
    command = f"tfds build cifar100 --data_dir={tmp_path}"
    assert_fault(MISSING_INPUT, f"not in {tmp_path}.*no network.*{command}", "cifar100", tmp_path)
    assert time.monotonic() - start < 5


def test_network_probe_stops_at_its_time_limit(monkeypatch):
    """The request hangs, as on a network that drops packets."""
    answer = threading.Event()

    def urlopen(*_, **__):
        answer.wait(30)
        raise OSError("timed out")

    monkeypatch.setattr(prepared, "_PROBE_SECONDS", -0.9)
    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    assert not prepared._online()
    answer.set()


def test_dataset_that_needs_manual_downloads_names_the_files(tmp_path):
    pattern = "downloads/manual: .*ILSVRC2012_img_train.tar.*tfds build imagenet2012"
    assert_fault(MISSING_INPUT, pattern, "imagenet2012", tmp_path)


def test_unknown_dataset_is_refused(tmp_path):
    assert_fault(MISSING_INPUT, "not in .*TFDS cannot make it: .*nonesuch", "nonesuch", tmp_path)


def test_invalid_dataset_name_is_refused(tmp_path):
    assert_fault(BAD_CONFIG, "'a b' is not the name of a dataset", "a b", tmp_path)


# Downloaded data run no code.

EVIL = "evil_package.trap.Feature"


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """Returns a function that tells whether `evil_package` was imported; it can be imported."""
    (tmp_path / "trap" / "evil_package").mkdir(parents=True)
    for name in ("__init__", "trap"):
        (tmp_path / "trap" / "evil_package" / f"{name}.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "trap")
    yield lambda: any(name.startswith("evil_package") for name in sys.modules)
    for name in ("evil_package", "evil_package.trap"):
        sys.modules.pop(name, None)


def features_dict(**features):
    name = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    return {"pythonClassName": name, "featuresDict": {"features": features}}


SEQUENCE = "tensorflow_datasets.core.features.sequence_feature.Sequence"
LEGACY = {"type": EVIL, "content": {}, "proto_cls": ""}
AS_TEXT = json.dumps({"feature": LEGACY})


@pytest.mark.parametrize(
    "features",
    [
        {"pythonClassName": EVIL, "text": {}},
        {"python_class_name": EVIL, "text": {}},
        features_dict(image={"pythonClassName": EVIL, "text": {}}),
        features_dict(type=features_dict(content={"pythonClassName": EVIL, "text": {}})),
        LEGACY,
        {"type": SEQUENCE, "content": {"feature": LEGACY, "length": None}},
        {"type": SEQUENCE, "content": AS_TEXT, "proto_cls": "tensorflow_datasets.JsonFeature"},
        {"pythonClassName": SEQUENCE, "jsonFeature": {"json": AS_TEXT}},
    ],
)
def test_features_of_other_packages_are_not_imported(tmp_path, trap, features):
    folder = write(tmp_path)
    (folder / "features.json").write_text(json.dumps(features))
    assert_fault(BAD_DATA, f"features.json names the class '{EVIL}'", "tiny", tmp_path)
    assert not trap()


def test_the_module_of_the_original_builder_is_not_imported(tmp_path, trap):
    path = write(tmp_path) / "dataset_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "moduleName": EVIL}))
    source = get("tiny", tmp_path)
    assert source.load(3)[1] == {"label": 0}
    assert not trap()


def test_features_are_checked_in_the_folder_that_tfds_reads(tmp_path, trap):
    """The default config of the dataset leads out of its folder."""
    folder = write(tmp_path / "elsewhere")
    (folder / "features.json").write_text(json.dumps({"pythonClassName": EVIL, "text": {}}))
    metadata = tmp_path / "tiny" / ".config" / "metadata.json"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(json.dumps({"default_config_name": "../elsewhere/tiny"}))
    assert_fault(BAD_DATA, f"elsewhere.*names the class '{EVIL}'", "tiny", tmp_path)
    assert not trap()


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"featuresDict": {}}', "[" * 100_000])
@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_damaged_descriptions_are_refused(tmp_path, name, text):
    (write(tmp_path) / name).write_text(text)
    assert_fault(BAD_DATA, "cannot read the dataset 'tiny' in .*prepare", "tiny", tmp_path)


@pytest.mark.parametrize("name", ["huggingface:mnist", "a:b:c", "tiny/data_dir='x'", "tiny/x/a=1"])
def test_names_that_reach_for_the_network_are_refused(tmp_path, name):
    assert_fault(BAD_CONFIG, "without a namespace", name, tmp_path)


def test_missing_dataset_is_prepared(tmp_path, monkeypatch):
    """The second preparation fails, which gives one message."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr(prepared, "_online", lambda: True)
    write(tmp_path)
    real = tfds.builder("tiny", data_dir=str(tmp_path))
    calls = []

    def download_and_prepare():
        calls.append(1)
        if len(calls) > 1:
            raise OSError("disk full")

    stand_in = types.SimpleNamespace(
        MANUAL_DOWNLOAD_INSTRUCTIONS=None,
        download_and_prepare=download_and_prepare,
        info=real.info,
        data_path=real.data_path,
    )
    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: stand_in)
    assert get("elsewhere", tmp_path).size == 9
    assert_fault(MISSING_INPUT, "failed: disk full.* tfds build", "elsewhere", tmp_path)


def test_cifar10_equals_the_examples_of_tfds(data_dir):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    if not (data_dir / "cifar10").is_dir():
        pytest.skip(f"no cifar10 in {data_dir}")
    source = get("cifar10", data_dir, "test")
    assert source.size == 10000
    assert source.classes[3] == "cat"
    builder = tfds.builder_from_directory(data_dir / "cifar10" / "3.0.2")
    reader = builder.as_dataset(
        split="test[:20]",
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    for i, expected in enumerate(reader.as_numpy_iterator()):
        record, labels = source.load(i)
        image, label = record["image"], labels["label"]
        assert label == expected["label"]
        pixels = tf.io.decode_jpeg(expected["image"], dct_method="INTEGER_ACCURATE").numpy()
        assert np.abs(image.astype(int) - pixels).max() <= 1
