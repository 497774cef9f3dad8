"""Folders of images and text files, and captions written from class names."""

import dataclasses
import logging
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from ssl_jax import components
from ssl_jax import config as configuration
from ssl_jax.config import same_data
from ssl_jax.data import pairs, pipeline, sources
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, MISSING_INPUT, Fault
from ssl_jax.inputs.pairs import make_input, tokenizer

OPTIONS = {"channels": 3, "max_megapixels": 1.0, "tokenizer": "", "vocabulary": 300}


def write(folder, name, caption, shade=0, side=8):
    path = folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), shade, np.uint8)).save(path)
    if caption is not None:
        data = caption if isinstance(caption, bytes) else caption.encode()
        path.with_suffix(".txt").write_bytes(data)


def opened(folder, split="train", name="pairs", facts=None, **options):
    options = OPTIONS | options
    return sources.open_source(name, data_dir=str(folder), split=split, facts=facts, **options)


def text(source, index):
    return source.load(index)[0]["text"].tobytes().decode()


def decoded(source, index):
    reader = pairs.tokenizer_from_facts(source.facts)
    return [reader.decode(row) for row in source.load(index)[0]["tokens"]]


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train", "b/dog", "A dog.\n\n  Two  dogs. \r\n", shade=10)
    write(tmp_path / "train", "a", "\ufeffGrün 日本", shade=20)
    write(tmp_path / "test", "cat", "A cat.", shade=30)
    return tmp_path


def test_pairs_are_found_in_nested_folders_in_bytewise_order(folder):
    source = opened(folder)
    assert (source.name, source.size, source.class_names) == ("pairs", 2, {})
    assert [text(source, i) for i in range(2)] == ["Grün 日本", "A dog.\nTwo  dogs."]
    assert [source.load(i)[0]["image"][0, 0, 0] for i in range(2)] == [20, 10]
    assert decoded(source, 0) == ["grün 日本"]
    assert decoded(source, 1) == ["a dog.", "two dogs."]
    record, labels = source.load(1)
    assert labels == {}
    assert record["tokens"].dtype == np.int32
    assert record["tokens"].shape[0] == 2
    assert source.describe(1).endswith("b/dog.png")


def test_the_test_split_uses_the_tokenizer_of_the_run(folder):
    train = opened(folder)
    test = opened(folder, "test", facts=train.facts)
    assert test.facts["tokenizer"].tobytes() == train.facts["tokenizer"].tobytes()
    assert decoded(test, 0) == ["a cat."]
    assert opened(folder, "test").facts["tokenizer"].tobytes() != train.facts["tokenizer"].tobytes()


def test_a_folder_without_splits_is_the_training_split(tmp_path):
    write(tmp_path, "x", "one")
    assert opened(tmp_path).size == 1
    assert sources.evaluation_split("pairs", str(tmp_path), "test") == "test"
    (tmp_path / "val").mkdir()
    assert sources.evaluation_split("pairs", str(tmp_path), "test") == "val"


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        (None, r"the caption .*x\.txt is missing"),
        (b"", r"x\.txt is empty"),
        (b" \n\t\n", r"x\.txt is empty"),
        (b"caf\xe9", r"x\.txt is not UTF-8: byte 3 is 0xe9"),
        ("Grün".encode("utf-16"), r"x\.txt is not UTF-8: byte 0 is 0xff"),
        ("a dog".encode("utf-16-le"), r"x\.txt contains NUL.*UTF-16"),
        (b"a\0dog", r"x\.txt contains NUL"),
    ],
)
def test_a_damaged_caption_is_an_unreadable_example(tmp_path, caption, reason):
    write(tmp_path, "ok", "fine")
    write(tmp_path, "x", caption)
    source = opened(tmp_path)
    assert text(source, 0) == "fine"
    with pytest.raises(ValueError, match=reason):
        source.load(1)


def test_unreadable_pairs_stop_or_are_replaced(tmp_path):
    for number in range(20):
        write(tmp_path, f"{number:02}", None if number == 3 else f"image {number}")
    source = opened(tmp_path)
    fields = configuration.default_config("pairs").augment.to_dict() | {"size": 8, "text_length": 9}
    inputs = make_input(augment=fields, data=OPTIONS, evaluation={"crop": 1.0}, seed=0)
    options = {"batch_size": 20, "seed": 0, "start_step": 0, "num_steps": 1}
    with pytest.raises(Fault, match=r"03\.png: the caption .*03\.txt is missing.*quarantine"):
        next(pipeline.train_batches(source, inputs, **options))
    batch = next(pipeline.train_batches(source, inputs, on_bad_example="quarantine", **options))
    assert sorted(batch["index"]) == sorted([*range(3), 4, *range(4, 20)])
    assert batch["tokens"].shape == (20, 9)


def test_no_caption_at_all_and_no_image_at_all(tmp_path):
    write(tmp_path, "x", None)
    with pytest.raises(
        Fault, match=r"no image in .* has a caption: .*x\.png needs .*x\.txt"
    ) as one:
        opened(tmp_path)
    assert one.value.code == BAD_DATA
    known = pairs._facts(tokenizer.train(["one"], 300))
    with pytest.raises(Fault, match=r"no image in .* has a caption"):
        opened(tmp_path, facts=known)  # as a test split, before the training
    (tmp_path / "empty").mkdir()
    with pytest.raises(Fault, match=r"no image in .*empty.*text file with the same name"):
        opened(tmp_path, "empty")


def test_text_files_without_image_are_skipped_with_a_warning(tmp_path, caplog):
    write(tmp_path, "x", "one")
    (tmp_path / "readme.txt").write_text("about")
    with caplog.at_level(logging.WARNING):
        assert opened(tmp_path).size == 1
    assert "skipped 1 text file without image" in caplog.text
    (tmp_path / "x.txt").rename(tmp_path / "y.txt")
    write(tmp_path, "z", "two")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert opened(tmp_path).size == 2
    assert "skipped 2 text files without image" in caplog.text  # x.png has no partner


def test_images_that_share_a_text_file_are_counted(tmp_path, caplog):
    write(tmp_path, "x", "one")
    shutil.copy(tmp_path / "x.png", tmp_path / "x.PNG")
    shutil.copy(tmp_path / "x.png", tmp_path / "x.bmp")
    with caplog.at_level(logging.WARNING):
        assert opened(tmp_path).size == 3
    assert "2 images share the text file of another image" in caplog.text
    assert "without image" not in caplog.text


def test_one_caption_is_drawn_per_epoch_and_the_first_is_evaluated(tmp_path):
    write(tmp_path, "x", "\n".join(f"caption {n}" for n in range(4)))
    source = opened(tmp_path)
    fields = configuration.default_config("pairs").augment.to_dict() | {
        "size": 8,
        "text_length": 16,
    }
    inputs = make_input(augment=fields, data=OPTIONS, evaluation={"crop": 1.0}, seed=0)
    reader = pairs.tokenizer_from_facts(source.facts)

    def drawn(start, steps):
        batches = pipeline.train_batches(
            source, inputs, batch_size=1, seed=0, start_step=start, num_steps=steps
        )
        return [reader.decode(batch["tokens"][0]) for batch in batches]

    captions = drawn(0, 80)
    counts = [captions.count(f"caption {n}") for n in range(4)]
    assert sum(counts) == 80
    assert min(counts) >= 10  # 20 are expected; 9 or fewer of 80 have a probability of 0.002
    assert drawn(37, 80) == captions[37:]
    (batch,) = pipeline.eval_batches(source, inputs, batch_size=1)
    assert reader.decode(batch["input"]["tokens"][0]) == "caption 0"


def test_captions_name_the_class_by_templates_chosen_by_the_number():
    images = sources.open_source("digits", data_dir="", split="train")
    source = opened("", name="captions:digits")
    assert source.name == "captions:digits"
    assert (source.size, source.classes) == (images.size, images.classes)
    used = set()
    for index in range(100):
        caption, label = text(source, index), source.load(index)[1]["label"]
        fitting = [t for t in pairs.TEMPLATES if t.format(images.classes[label]) == caption]
        assert len(fitting) == 1
        used |= set(fitting)
        assert decoded(source, index) == [caption]
        np.testing.assert_array_equal(
            source.load(index)[0]["image"], images.load(index)[0]["image"]
        )
    assert len(used) == len(pairs.TEMPLATES) == 18


def test_captions_need_labels_and_images(folder, tmp_path):
    with pytest.raises(Fault, match="no labels") as unlabelled:
        opened(folder / "test" / "..", name="captions:folder", split="test")
    assert unlabelled.value.code == BAD_DATA


@pytest.mark.parametrize(
    "inner", ["pairs", "audio", "text", "captions:digits", "some.module:function", "tfds", ""]
)
def test_captions_are_refused_for_all_but_images_of_the_package(tmp_path, inner):
    with pytest.raises(Fault, match=r"images of digits, folder or tfds:NAME") as refused:
        opened(tmp_path, name=f"captions:{inner}")
    assert refused.value.code == BAD_CONFIG
    config = configuration.default_config("pairs")
    config.data.update(source=f"captions:{inner}", dir=str(tmp_path))
    assert "data.source=" in "\n".join(configuration.problems(config))


@pytest.mark.parametrize("inner", ["digits", "folder", "tfds:cifar10"])
def test_captions_of_images_pass_the_check(inner):
    config = configuration.default_config("pairs")
    config.data.update(source=f"captions:{inner}", dir="somewhere")
    assert not [x for x in configuration.problems(config) if x.startswith("data.source")]


def test_captions_name_the_classes_of_the_chosen_label(monkeypatch):
    images = sources.open_source("digits", data_dir="", split="train")
    parity = {"parity": ("even", "odd")}

    def load(index):
        record, labels = images.load(index)
        return record, labels | {"parity": labels["label"] % 2}

    both = dataclasses.replace(images, load=load, class_names={**images.class_names, **parity})
    monkeypatch.setattr(sources.digits, "open_digits", lambda *_: both)
    for label, names in (("", images.classes), ("parity", parity["parity"])):
        source = sources.open_source(
            "captions:digits", data_dir="", split="train", label=label, **OPTIONS
        )
        assert source.classes == names
        for index in range(5):
            name = names[source.label(source.load(index)[1])]
            assert text(source, index) in [t.format(name) for t in pairs.TEMPLATES]


def test_held_out_captions_do_not_train_the_tokenizer(tmp_path):
    for number in range(10):
        write(tmp_path / "train", f"{number}", f"caption {number} of ten" * 3)
    config = configuration.default_config("pairs")
    config.data.update(dir=str(tmp_path), vocabulary=300, holdout=0.3)
    before = components.open_source(config, "train")
    captions = [text(before, i) for i in range(before.size)]
    assert before.size == 7
    assert pairs.tokenizer_from_facts(before.facts).text == tokenizer.train(captions, 300).text
    held_out = components.open_unlabelled_test(config, before)
    assert held_out.facts["tokenizer"].tobytes() == before.facts["tokenizer"].tobytes()
    for index in range(held_out.size):
        image = pathlib.Path(held_out.describe(index))
        image.with_suffix(".txt").write_text("quite another zebra zebra zebra zebra")
    after = components.open_source(config, "train")
    assert after.facts["tokenizer"].tobytes() == before.facts["tokenizer"].tobytes()


def test_fields_of_pairs_are_checked():
    config = configuration.default_config("pairs")
    assert config.augment.views == 1
    assert not configuration.is_identity("data.tokenizer", "pairs")
    assert configuration.is_identity("data.vocabulary", "pairs")
    config.data.vocabulary, config.augment.text_length, config.eval.prompts = 100, 2, ("a photo",)
    sentences = "\n".join(configuration.problems(config))
    for part in ("data.vocabulary=100: at least 258", "augment.text_length=2: at least 3",
                 "eval.prompts=", "data.dir=''"):  # fmt: skip
        assert part in sentences


def test_another_folder_of_pairs_is_other_data():
    own = configuration.default_config("pairs").data
    given = own.copy_and_resolve_references()
    given.dir = "/elsewhere"
    assert same_data.is_transfer(own, given)


def test_unlabelled_pairs_have_a_test_split(folder, capsys):
    config = configuration.default_config("pairs")
    config.data.update(dir=str(folder), vocabulary=300)
    train = components.open_source(config, "train")
    assert components.open_test_source(config, train) is None
    test = components.open_unlabelled_test(config, train)
    assert text(test, 0) == "A cat."
    assert test.facts["tokenizer"].tobytes() == train.facts["tokenizer"].tobytes()
    config.data.eval_split = "holiday"
    with pytest.raises(Fault, match="holiday") as missing:
        components.open_unlabelled_test(config, train)
    assert missing.value.code == MISSING_INPUT
    config.data.eval_split = "test"
    shutil.move(folder / "test", folder / "other")
    assert components.open_unlabelled_test(config, train) is None
    assert "training examples are evaluated" in capsys.readouterr().out
    config.data.update(eval_split="test", holdout=0.5)
    kept = components.open_source(config, "train")
    assert components.open_test_source(config, kept) is None
    held_out = components.open_unlabelled_test(config, kept)
    assert {text(kept, 0), text(held_out, 0)} == {"Grün 日本", "A dog.\nTwo  dogs."}
