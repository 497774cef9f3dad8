"""Evaluation splits: a part of the training split that is held out, or a folder of another name."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from ssl_jax import components
from ssl_jax import config as configuration
from ssl_jax.data import holdout, sources, text
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, MISSING_INPUT, Fault


def config_of(source="folder", data_dir="", **data):
    config = configuration.default_config()
    config.data.update(source=source, dir=str(data_dir), **data)
    return config


def fill(folder, counts):
    """Writes an image of its own colour for each example: {class: number of images}."""
    colours = iter(range(1000))
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (2, 2), next(colours)).save(folder / name / f"{i:03}.png")


def names(source):
    return [source.describe(i) for i in range(source.size)]


@pytest.mark.parametrize("share", [0.001, 0.1, 1 / 3, 0.5, 0.9])
def test_the_two_parts_share_no_example(share):
    whole = sources.open_source("digits", data_dir="", split="train")
    train, test = holdout.training_part(whole, share), holdout.held_out_part(whole, share)
    assert test.size == round(share * whole.size)
    assert sorted(names(train) + names(test)) == sorted(names(whole))
    for part in (train, test):
        for i in (0, part.size // 2, part.size - 1):
            original = names(whole).index(part.describe(i))
            np.testing.assert_array_equal(
                part.load(i)[0]["image"], whole.load(original)[0]["image"]
            )
            assert part.read_label(i) == whole.read_label(original)


def test_each_stretch_of_neighbours_gives_one_example():
    rows = holdout.held_out_rows(1297, 0.1, "digits")
    edges = [1297 * i // 130 for i in range(131)]
    assert np.array_equal(np.histogram(rows, edges)[0], np.ones(130))
    assert len({row - edge for row, edge in zip(rows, edges, strict=False)}) == 10  # not periodic
    # Held-out examples must stay the same in every release and on every machine.
    digest = hashlib.sha256(repr(rows.tolist()).encode()).hexdigest()
    assert digest[:16] == "88e8156f7e6c51e2"


def test_classes_of_a_folder_are_held_out_in_proportion(tmp_path):
    counts = {"a": 20, "b": 40, "c": 100}
    fill(tmp_path, counts)
    config = config_of(data_dir=tmp_path, holdout=0.1, eval_split="")
    train = components.open_source(config, "train")
    test = components.open_test_source(config, train)
    assert train.classes == test.classes == ("a", "b", "c")
    for part, share in ((train, 0.9), (test, 0.1)):
        held = np.bincount([part.read_label(i) for i in range(part.size)])
        assert np.abs(held - share * np.array(list(counts.values()))).max() <= 1
    assert not set(names(train)) & set(names(test))
    assert test.size == 16


def test_the_held_out_part_replaces_the_evaluation_split(capsys):
    config = config_of("digits", holdout=0.1)
    train = components.open_source(config, "train")
    test = components.open_test_source(config, train)
    assert (train.size, test.size) == (1167, 130)
    assert train.split == "train without the 10 % held out"
    assert test.split == "10 % held out from train"
    assert capsys.readouterr().out == "evaluation on 130 examples: 10 % held out from train\n"
    # Another split is whole, and without the field nothing is held out.
    assert components.open_source(config, "test").size == 500
    with config.unlocked():
        del config.data.holdout, config.data.max_megapixels  # as in older configs
    assert components.open_source(config, "train").size == 1297
    assert components.open_test_source(config, train).size == 500


def test_examples_without_labels_are_not_held_out_in_vain(tmp_path):
    fill(tmp_path, {"train": 20})
    config = config_of(data_dir=tmp_path, holdout=0.1)
    with pytest.raises(Fault, match=r"data\.holdout=0\.1: folder has no labels") as caught:
        components.open_test_source(config, components.open_source(config, "train"))
    assert caught.value.code == BAD_CONFIG


def test_something_must_be_left_for_training(tmp_path):
    fill(tmp_path, {"a": 1})
    with pytest.raises(Fault, match=r"data\.holdout=0\.1 leaves no example of the 1 in") as caught:
        components.open_source(config_of(data_dir=tmp_path, holdout=0.1), "train")
    assert caught.value.code == BAD_DATA


def test_the_two_parts_share_no_document(tmp_path):
    lines = [" ".join(f"d{number}" for _ in range(1 + number % 7)) for number in range(60)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    whole = text.open_text(str(tmp_path), "train", min_count=1, chunk=2)
    train, test = holdout.training_part(whole, 0.1), holdout.held_out_part(whole, 0.1)
    assert sorted(names(train) + names(test)) == sorted(names(whole))
    parts = [
        {int(word) for i in range(part.size) for word in part.load(i)[0]["tokens"]}
        for part in (train, test)
    ]  # a word is in one document
    assert not parts[0] & parts[1]
    assert len(parts[1]) == 6
    assert {train.group(i) for i in range(train.size)}.isdisjoint(
        test.group(i) for i in range(test.size)
    )


def test_a_single_document_is_not_held_out(tmp_path):
    (tmp_path / "a.txt").write_text("a b " * 100)
    whole = text.open_text(str(tmp_path), "train", min_count=1, chunk=2)
    with pytest.raises(Fault, match="leaves no document of the 1 in text"):
        holdout.training_part(whole, 0.1)


@pytest.mark.parametrize(
    ("folders", "asked", "found"),
    [
        (("val",), "test", "val"),
        (("validation",), "test", "validation"),
        (("validation", "val"), "test", "val"),
        (("val", "test"), "test", "test"),
        (("val", "test"), "val", "val"),
        (("test",), "validation", "test"),
        (("val", "mine"), "mine", "mine"),
    ],
)
def test_a_folder_of_evaluation_images_is_found_by_its_usual_names(
    tmp_path, capsys, folders, asked, found
):
    fill(tmp_path / "train", {"a": 3, "b": 3})
    for number, folder in enumerate(folders):
        fill(tmp_path / folder, {"a": 1 + number, "b": 1})
    config = config_of(data_dir=tmp_path, eval_split=asked)
    test = components.open_test_source(config, components.open_source(config, "train"))
    assert test.size == folders.index(found) + 2
    assert f"/{found}/a/000.png" in test.describe(0)
    assert capsys.readouterr().out == f"evaluation on {test.size} examples: {found}\n"


def test_without_evaluation_images_the_message_says_both_ways(tmp_path, capsys):
    fill(tmp_path / "train", {"a": 3, "b": 3})
    fill(tmp_path / "mine", {"a": 3, "b": 3})
    ways = (r"--config\.data\.holdout=0\.1", r'--config\.data\.eval_split=""')
    config = config_of(data_dir=tmp_path, eval_split="test")
    train = components.open_source(config, "train")
    assert components.open_test_source(config, train) is None
    printed = capsys.readouterr().out
    assert f"no evaluation: no folder {tmp_path}/test" in printed
    assert all(way.replace("\\", "") in printed for way in ways)
    config = config_of(data_dir=tmp_path, eval_split="tst")  # a mistake of the user
    with pytest.raises(Fault, match=f"no folder {tmp_path}/tst .*" + ".*".join(ways)) as caught:
        components.open_test_source(config, train)
    assert caught.value.code == MISSING_INPUT
    config = config_of("digits", eval_split="val")
    pattern = ".*".join(["digits has no split 'val'; available splits: train, test", *ways])
    with pytest.raises(Fault, match=pattern) as caught:
        components.open_test_source(config, components.open_source(config, "train"))
    assert caught.value.code == MISSING_INPUT
