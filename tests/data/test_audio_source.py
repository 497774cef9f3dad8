"""The source of sound files: labels, splits and groups from names and folders, and messages."""

import os
import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "inputs" / "audio"))
import sounds

from ssl_jax import components
from ssl_jax import config as configuration
from ssl_jax.data import file_names, sources
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, MISSING_INPUT, Fault

PATTERN = "{digit}_{speaker}_{take}"
OPTIONS = {"sample_rate": 8000, "pattern": PATTERN, "group": "speaker"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return sounds.write_digits(tmp_path_factory.mktemp("data") / "digits", takes=11, seconds=0.05)


def open_audio(folder, split, label="", **options):
    return sources.open_source("audio", data_dir=str(folder), split=split, label=label, **options)


def test_names_give_labels_groups_and_splits(digits):
    source = open_audio(digits, "take>=2", **OPTIONS)
    assert source.size == 2 * 3 * 9
    assert source.label_field == "digit"
    assert source.class_names["digit"] == ("0", "1")
    assert source.class_names["speaker"] == ("anna", "bert", "carl")
    assert source.class_names["take"] == tuple(map(str, range(11)))  # 10 after 9
    for index in range(source.size):
        record, labels = source.load(index)
        digit, speaker, take = pathlib.Path(source.describe(index)).stem.split("_")
        expected = {"digit": int(digit), "speaker": "abc".index(speaker[0]), "take": int(take)}
        assert labels == source.read_labels(index) == expected
        assert int(record["group"]) == expected["speaker"]
        assert record["group"].dtype == np.int32
        assert record["waveform"].shape == (400,)
    assert open_audio(digits, "take>=2", "speaker", **OPTIONS).classes == ("anna", "bert", "carl")


@pytest.mark.parametrize(
    ("split", "size"),
    [
        ("take<2", 12), ("take<=2", 18), ("take>9", 6), ("speaker=anna", 22),
        ("speaker=anna|bert", 44), ("speaker!=anna|bert", 22), ("speaker!=carl&take>=9", 8),
        ("all", 66), ("train", 66), ("digit=1 & take=3", 3), ("speaker != carl | anna", 22),
    ],
)  # fmt: skip
def test_conditions_choose_files(digits, split, size):
    source = open_audio(digits, split, **OPTIONS)
    assert source.size == size
    assert source.class_names["speaker"] == ("anna", "bert", "carl")  # those of all files


@pytest.mark.parametrize(
    ("split", "options", "message", "code"),
    [
        ("test", OPTIONS, r"no folder .* for the split 'test'", MISSING_INPUT),
        ("speaker!=Carl", OPTIONS, r"'speaker!=Carl': no file has.*: anna, bert, carl", BAD_CONFIG),
        ("speaker==carl", OPTIONS, r"value '=carl' of speaker", BAD_CONFIG),
        ("speaker!=>carl", OPTIONS, r"value '>carl' of speaker", BAD_CONFIG),
        ("take=2|", OPTIONS, r"value '' of take.*0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …", BAD_CONFIG),
        ("volume>3", OPTIONS, r"'volume>3' is neither a folder", BAD_CONFIG),
        ("take>few", OPTIONS, r"take has the value 'few'.*no whole number", BAD_CONFIG),
        ("speaker>3", OPTIONS, r"speaker has the value 'anna'.*= or !=", BAD_CONFIG),
        ("take>90", OPTIONS, r"no file in .* fulfils the condition 'take>90'", BAD_DATA),
        ("all", OPTIONS | {"pattern": "{a}-{b}"}, r"pattern='{a}-{b}' fits no file", BAD_DATA),
        ("all", OPTIONS | {"pattern": "take"}, r"name each field once, in braces", BAD_CONFIG),
        ("all", OPTIONS | {"pattern": "{1}_{b}"}, r"name each field once", BAD_CONFIG),
        ("all", OPTIONS | {"pattern": "{a}_{b c}"}, r"no other braces are allowed", BAD_CONFIG),
        ("all", OPTIONS | {"pattern": "{folder}_{b}"}, r"{folder} is no name", BAD_CONFIG),
        ("all", OPTIONS | {"group": "size"}, r"data.group='size'.*take, folder", BAD_CONFIG),
    ],
)
def test_mistakes_are_named(digits, split, options, message, code):
    with pytest.raises(Fault, match=message) as refused:
        open_audio(digits, split, **options)
    assert refused.value.code == code


def test_files_that_do_not_fit_are_skipped_with_a_warning(tmp_path, caplog):
    folder = sounds.write_digits(tmp_path / "d", takes=1, seconds=0.01)
    sounds.write_wav(folder / "readme.wav", [1, 2])
    assert open_audio(folder, "all", **OPTIONS).size == 6
    assert "skipped 1 files that do not fit" in caplog.text
    assert "readme.wav" in caplog.text


def test_class_folders_are_labels_and_groups(tmp_path):
    for split in ("train", "test"):
        for name in ("b", "a"):
            (tmp_path / split / name / "deep").mkdir(parents=True)
            sounds.write_wav(tmp_path / split / name / "deep" / "1.wav", [ord(name)] * 9)
    source = open_audio(tmp_path, "train", sample_rate=8000, group="folder")
    assert source.classes == ("a", "b")
    for index in range(2):
        record, labels = source.load(index)
        assert labels == {"label": int(record["group"])}
        assert record["waveform"][0] == ord("ab"[labels["label"]]) / 2**15
    flat = open_audio(tmp_path / "train" / "a" / "deep", "train", sample_rate=8000)
    assert flat.size == 1
    assert not flat.class_names
    assert sources.evaluation_split("audio", str(tmp_path), "val") == "test"


def test_a_field_of_the_pattern_may_be_called_label(digits):
    source = open_audio(digits, "all", pattern="{label}_{speaker}_{take}")
    labels = {source.read_label(index) for index in range(source.size)}
    assert source.classes == ("0", "1")
    assert labels == {0, 1}


def test_splits_share_the_classes_of_all_folders_or_files(tmp_path):
    for split, names in (("train", ("s10", "s9", "s8")), ("test", ("s10", "s9"))):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            sounds.write_wav(tmp_path / split / name / f"{name}_1.wav", [1] * 9)
    (tmp_path / "test" / "s8").mkdir()  # an empty class folder
    for options, classes in (({}, ("s10", "s8", "s9")), ({"pattern": "s{n}_1"}, ("8", "9", "10"))):
        train, test = (open_audio(tmp_path, split, **options) for split in ("train", "test"))
        assert (train.size, test.size) == (3, 2)
        assert train.classes == test.classes == classes
        assert test.read_label(0) == classes.index(classes[0] if not options else "10")


def test_training_files_are_no_test_files(digits):
    def open_both(split, eval_split):
        config = configuration.default_config("audio")
        config.data.update(dir=str(digits), split=split, eval_split=eval_split, pattern=PATTERN)
        return components.open_test_source(config, components.open_source(config, split))

    assert open_both("take>=5", "take<5").size == 30
    message = r"12 examples are both in 'take>=5' and in 'speaker=anna', for example .*anna_10.wav"
    with pytest.raises(Fault, match=message) as refused:
        open_both("take>=5", "speaker=anna")
    assert refused.value.code == BAD_DATA
    with pytest.raises(Fault, match=r"6 examples are both in 'train' and in 'take=3'"):
        open_both("train", "take=3")
    assert open_both("train", "test") is None  # no such folder: training without evaluation


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(Fault, match=r"no folder .*FOLDER of your sound files") as refused:
        open_audio(tmp_path / "none", "train")
    assert refused.value.code == MISSING_INPUT
    with pytest.raises(Fault, match=r"no sound file in .*\.flac, \.wav"):
        open_audio(tmp_path, "train")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bad.wav").write_bytes(b"RIFF")
    source = open_audio(tmp_path, "train")
    with pytest.raises(ValueError, match="not a readable WAV or FLAC file"):
        source.load(0)
    before = source.identity()
    os.remove(tmp_path / "a" / "bad.wav")
    with pytest.raises(Fault, match=r"cannot read .*bad.wav: No such file"):
        source.load(0)
    sounds.write_wav(tmp_path / "a" / "bad.wav", [1] * 99)
    assert open_audio(tmp_path, "train").identity() != before


def test_a_pattern_divides_names_shortest_first():
    read = file_names.reader("{a}-{b}")
    assert read("x-y-z") == {"a": "x", "b": "y-z"}
    assert read("xyz") is None
    assert file_names.reader("take.{n}")("take1") is None  # the dot is a dot
    assert file_names.natural_order(["s10", "s9", "t1", "s9"]) == ["s9", "s10", "t1"]
    assert file_names.natural_order(["²", "10", "9"]) == ["9", "10", "²"]  # "²" is no number


@pytest.mark.skipif(not os.environ.get("SSL_JAX_DATA_DIR"), reason="needs SSL_JAX_DATA_DIR")
def test_spoken_digits():
    folder = pathlib.Path(os.environ["SSL_JAX_DATA_DIR"]) / "spoken_digit"
    train, test = (open_audio(folder, split, **OPTIONS) for split in ("take>=5", "take<5"))
    assert (train.size, test.size) == (2700, 300)
    assert len(train.class_names["speaker"]) == 6
    record, _ = train.load(0)
    assert 0.01 < np.abs(record["waveform"]).max() <= 1
