"""Opening sources by name: digits, and folders of image files."""

import functools
import hashlib
import os

import numpy as np
import pytest
from PIL import Image

from ssl_jax.data import sources
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, IO_ERROR, MISSING_INPUT, Fault


def assert_fault(code, pattern, name="folder", **arguments):
    with pytest.raises(Fault, match=pattern) as caught:
        sources.open_source(name, **arguments)
    assert caught.value.code == code


def save(path, colour, size=(6, 4), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)


def test_unknown_source_is_refused():
    assert_fault(
        BAD_CONFIG,
        "unknown data source 'digit'; choose audio, captions:SOURCE, digits",
        "digit",
        data_dir="",
        split="train",
    )


def test_digits_hold_every_image_of_scikit_learn_once():
    digits = load_digits_once()
    seen = []
    for split, size in [("train", 1297), ("test", 500)]:
        source = sources.open_source("digits", data_dir="", split=split)
        assert source.size == size
        assert source.classes == tuple("0123456789")
        for i in range(size):
            number = int(source.describe(i).split()[1])
            record, labels = source.load(i)
            image, label = record["image"], labels["label"]
            expected = np.rint(digits.images[number] * 255 / 16)
            np.testing.assert_array_equal(image, np.stack([expected] * 3, -1).astype(np.uint8))
            assert label == source.read_label(i) == digits.target[number]
            seen.append(number)
    assert sorted(seen) == list(range(len(digits.target)))
    # The split is part of every published number: it must never change.
    digest = hashlib.sha256(repr(seen).encode()).hexdigest()
    assert digest[:16] == "cdb5bd94556f143a"


@functools.cache
def load_digits_once():
    from sklearn.datasets import load_digits

    return load_digits()


def test_digits_has_no_other_split():
    assert_fault(
        MISSING_INPUT,
        "no split 'val'; available splits: train, test",
        "digits",
        data_dir="",
        split="val",
    )


def test_class_folders_give_labels(tmp_path, caplog):
    root = tmp_path / "train"
    save(root / "b" / "2.png", (0, 0, 250))
    save(root / "b" / "1.JPG", (0, 250, 0), format="JPEG")
    save(root / "b" / "deep" / "er" / "0.bmp", (250, 0, 0))
    save(root / "Z" / "x.webp", (9, 9, 9), lossless=True)
    save(root / "b" / ".hidden.png", (1, 1, 1))
    save(root / ".cache" / "1.png", (1, 1, 1))
    save(root / "b" / "thumb.tiff", (1, 1, 1))
    (root / "c").mkdir()
    save(root / "é" / "0.jpeg", (99, 99, 99))
    source = sources.open_source("folder", data_dir=str(tmp_path), split="train")
    assert source.classes == ("Z", "b", "c", "é")  # bytewise: capitals first, accents last
    assert source.size == 5
    names = [source.describe(i)[len(str(root)) + 1 :] for i in range(5)]
    assert names == ["Z/x.webp", "b/1.JPG", "b/2.png", "b/deep/er/0.bmp", "é/0.jpeg"]
    assert [source.label(source.load(i)[1]) for i in range(5)] == [0, 1, 1, 1, 3]
    assert [source.read_label(i) for i in range(5)] == [0, 1, 1, 1, 3]
    np.testing.assert_array_equal(source.load(2)[0]["image"], np.full((4, 6, 3), [0, 0, 250]))
    assert "class folder 'c' holds no image" in caplog.text
    assert "1 .tiff" in caplog.text


def test_flat_folder_has_no_labels(tmp_path):
    save(tmp_path / "train" / "1.png", (1, 2, 3))
    save(tmp_path / "train" / "10.png", (4, 5, 6))
    source = sources.open_source("folder", data_dir=str(tmp_path), split="train")
    assert (source.size, source.classes) == (2, ())
    assert source.label(source.load(1)[1]) == source.read_label(1) == -1
    np.testing.assert_array_equal(source.load(1)[0]["image"][0, 0], [4, 5, 6])


@pytest.mark.parametrize("name", ["cats/1.png", "1.png"])
def test_without_split_folders_the_whole_folder_is_train(tmp_path, name):
    save(tmp_path / name, (1, 2, 3))
    assert sources.open_source("folder", data_dir=str(tmp_path), split="train").size == 1
    assert_fault(
        MISSING_INPUT, "no folder .*/test for the split", data_dir=str(tmp_path), split="test"
    )


def test_folder_named_like_a_split_is_not_a_class(tmp_path):
    save(tmp_path / "val" / "cats" / "1.png", (1, 2, 3))
    pattern = f"no folder {tmp_path}/train .*folders in .*: val"
    assert_fault(MISSING_INPUT, pattern, data_dir=str(tmp_path), split="train")


def test_missing_and_empty_folders_are_refused(tmp_path):
    path = str(tmp_path / "nowhere")
    assert_fault(MISSING_INPUT, f"no folder {path}", data_dir=path, split="train")
    (tmp_path / "train" / "cats").mkdir(parents=True)
    assert_fault(BAD_DATA, f"no image in {tmp_path}/train", data_dir=str(tmp_path), split="train")


@pytest.mark.parametrize("channels", [1, 4])
def test_digits_repeat_the_grey_value_in_all_channels(channels):
    rgb, other = (
        sources.open_source("digits", data_dir="", split="test", channels=n) for n in (3, channels)
    )
    assert other.record["image"][1] == (None, None, channels)
    image = other.load(7)[0]["image"]
    assert image.shape == (8, 8, channels)
    assert (image == rgb.load(7)[0]["image"][..., :1]).all()


def test_folder_decodes_to_the_channels_of_the_config(tmp_path):
    save(tmp_path / "train" / "1.png", (10, 200, 30))
    grey, rgba = (
        sources.open_source("folder", data_dir=str(tmp_path), split="train", channels=n)
        for n in (1, 4)
    )
    assert grey.load(0)[0]["image"].shape == (4, 6, 1)
    np.testing.assert_array_equal(rgba.load(0)[0]["image"][0, 0], [10, 200, 30, 255])
    pattern = r"data\.channels=2: .*1 \(grey\), 3 \(RGB\) or 4 \(RGBA\)"
    assert_fault(BAD_CONFIG, pattern, data_dir=str(tmp_path), split="train", channels=2)


def test_links_are_followed(tmp_path):
    save(tmp_path / "elsewhere" / "1.png", (1, 2, 3))
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "cats").symlink_to(tmp_path / "elsewhere")
    assert sources.open_source("folder", data_dir=str(tmp_path), split="train").size == 1


def names_by_class(root):
    """Returns {class: names of its images}, and the log is in `caplog`."""
    source = sources.open_source("folder", data_dir=str(root), split="train")
    found = {name: [] for name in source.classes}
    for i in range(source.size):
        found[source.classes[source.read_label(i)]].append(source.describe(i).split("train/", 1)[1])
    return found


def test_each_folder_is_read_once_whatever_links_lead_to_it(tmp_path, caplog):
    train = tmp_path / "train"
    save(tmp_path / "test" / "b" / "secret.png", (9, 9, 9))
    save(train / "b" / "sub" / "1.png", (1, 2, 3))
    save(train / "c" / "2.png", (1, 2, 3))
    save(tmp_path / "elsewhere" / "3.png", (1, 2, 3))
    (train / "a").mkdir()
    for number, target in enumerate((".", "..", "../..", "/", "../b", "../b/sub", "../../test/..")):
        (train / "a" / f"link{number}").symlink_to(target)
    (train / "a" / "self").symlink_to("self")
    (train / "a" / "out").symlink_to(tmp_path / "elsewhere")
    (train / "a" / "out_again").symlink_to(tmp_path / "elsewhere")
    (train / "d").symlink_to(train / "c")
    (tmp_path / "elsewhere" / "back").symlink_to(train)
    found = names_by_class(tmp_path)
    assert found == {"a": ["a/out/3.png"], "b": ["b/sub/1.png"], "c": ["c/2.png"], "d": []}
    assert "10 repeated folder" in caplog.text
    assert "class folder 'd' holds no image" in caplog.text


def test_only_links_as_class_folders(tmp_path):
    for name in "ba":
        save(tmp_path / "elsewhere" / name / "1.png", (1, 2, 3))
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / name).symlink_to(tmp_path / "elsewhere" / name)
    assert names_by_class(tmp_path) == {"a": ["a/1.png"], "b": ["b/1.png"]}


def test_only_regular_files_are_images(tmp_path, caplog):
    folder = tmp_path / "train" / "a"
    save(folder / "1.png", (1, 2, 3))
    (folder / "2.png").symlink_to(folder / "1.png")
    os.mkfifo(folder / "3.png")
    (folder / "4.png").symlink_to(folder / "3.png")
    (folder / "5.png").symlink_to("/dev/zero")
    assert names_by_class(tmp_path) == {"a": ["a/1.png", "a/2.png"]}
    assert "3 pipe, socket or device" in caplog.text


def test_link_to_a_missing_image_is_refused(tmp_path):
    save(tmp_path / "train" / "1.png", (1, 2, 3))
    (tmp_path / "train" / "2.png").symlink_to("gone.png")
    pattern = r"train/2\.png is a link to a file that is missing"
    assert_fault(MISSING_INPUT, pattern, data_dir=str(tmp_path), split="train")


@pytest.mark.parametrize("call", ["scandir", "stat"])
def test_unreadable_folder_is_an_error(tmp_path, monkeypatch, call):
    """Its images would be missing from the data without a word. Root may read every folder."""
    save(tmp_path / "train" / "a" / "deep" / "1.png", (1, 2, 3))
    save(tmp_path / "train" / "a" / "2.png", (1, 2, 3))
    real = getattr(os, call)

    def denied(path, *arguments, **options):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, call, denied)
    pattern = "cannot read the folder .*/train/a/deep: Permission denied"
    assert_fault(IO_ERROR, pattern, data_dir=str(tmp_path), split="train")


def test_control_characters_in_names_are_escaped(tmp_path, caplog):
    name = "\x1b[2Jx\ny"
    save(tmp_path / name / "train" / name / "1.png", (1, 2, 3))
    (tmp_path / name / "train" / name / f"1.{name}").touch()
    (tmp_path / name / "train" / "empty").mkdir()
    (tmp_path / name / "train" / "beside.txt").touch()
    source = sources.open_source("folder", data_dir=str(tmp_path / name), split="train")
    faults = []
    for data_dir, split in [(name, "val"), (f"{name}/nowhere", "train"), (f"{name}/train", name)]:
        with pytest.raises(Fault) as caught:
            sources.open_source("folder", data_dir=str(tmp_path / data_dir), split=split + "?")
        faults.append(str(caught.value))
    (tmp_path / name / "train" / name / "1.png").unlink()
    for action in (lambda: source.load(0), lambda: names_by_class(tmp_path / name)):
        with pytest.raises(Fault) as caught:
            action()
        faults.append(str(caught.value))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) >= 3
    for message in [*messages, *faults, source.describe(0)]:
        assert r"\x1b[2Jx\ny" in message
        assert message.isprintable()


def test_damaged_missing_and_unreadable_files_raise(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}\n.png", (1, 2, 3))
    source = sources.open_source("folder", data_dir=str(tmp_path), split="train")
    (tmp_path / "0\n.png").write_bytes(b"")
    (tmp_path / "1\n.png").unlink()
    (tmp_path / "2\n.png").unlink()
    (tmp_path / "2\n.png").mkdir()
    assert "\n" not in source.describe(0)
    with pytest.raises(ValueError, match="empty"):
        source.load(0)
    for i, code in [(1, MISSING_INPUT), (2, IO_ERROR)]:
        with pytest.raises(Fault, match=f"cannot read .*{i}") as caught:
            source.load(i)
        assert caught.value.code == code
