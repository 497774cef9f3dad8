"""Finding unreadable examples before training, and how many of them training accepts."""

import numpy as np
import pytest
from PIL import Image

from ssl_jax import config as configuration
from ssl_jax.data import readable
from ssl_jax.data.loader import tolerated
from ssl_jax.data.source import Source, image_record
from ssl_jax.errors import BAD_DATA, IO_ERROR, Fault
from ssl_jax.training import preview


@pytest.mark.parametrize(
    ("size", "max_bad", "allowed"),
    [
        (65, 0.001, 5),
        (50, 0.001, 5),
        (49, 0.001, 4),
        (9, 0.001, 0),
        (8, 0.5, 4),
        (21, 3 / 21, 3),
        (5_000, 0.001, 5),
        (1_281_167, 0.001, 1281),
    ],
)
def test_small_data_may_have_a_few_unreadable_examples(size, max_bad, allowed):
    assert tolerated(size, max_bad) == allowed


def test_every_example_is_loaded_once_and_every_error_is_listed(monkeypatch, capsys):
    errors = {3: ValueError("damaged"), 170: Fault("cannot read x", IO_ERROR), 499: KeyError()}
    loaded = []

    def load(index):
        loaded.append(index)
        if index in errors:
            raise errors[index]

    source = Source("mine", 500, image_record(3), load=load, describe=str)
    monkeypatch.setattr(readable, "usable_cores", lambda: 2)  # 128 examples at once
    monkeypatch.setattr("ssl_jax.jobs.countdown.INTERVAL", 0)  # a line before each example
    found = readable.unreadable(source, "train")
    assert list(found.items()) == [(3, "damaged"), (170, "cannot read x"), (499, "KeyError")]
    assert sorted(loaded) == list(range(500))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"train: {done} of 500 examples" for done in range(1, 500)
    ]


def test_memory_that_runs_out_is_no_damaged_example():
    def load(index):
        raise MemoryError

    with pytest.raises(MemoryError):
        readable.unreadable(Source("mine", 1, image_record(3), load=load, describe=str), "train")


@pytest.fixture
def config(tmp_path):
    """Config of a folder with 25 training and 4 evaluation images."""
    for split, count in (("train", 25), ("val", 4)):
        for i in range(count):
            path = tmp_path / split / "ab"[i % 2] / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (3, 2), (i, 1, 2)).save(path)
    config = configuration.default_config()
    config.data.update(source="folder", dir=str(tmp_path))
    return config


def test_check_says_that_all_examples_are_readable(config, capsys):
    preview.check_examples(config)
    assert capsys.readouterr().out.splitlines() == [
        "evaluation on 4 examples: val",
        "train: reading 25 examples of folder",
        "evaluation: reading 4 examples of folder",
        "every example is readable: 29",
    ]


def test_check_lists_unreadable_examples_of_both_splits(config, capsys, tmp_path):
    for i in range(22):
        (tmp_path / "train" / "ab"[i % 2] / f"{i:02}.png").write_bytes(b"")
    damaged = tmp_path / "val" / "b" / "03.png"
    damaged.write_bytes(damaged.read_bytes()[:45])
    with pytest.raises(Fault, match=r"^23 of 29 examples are unreadable\. Repair") as caught:
        preview.check_examples(config)
    assert caught.value.code == BAD_DATA
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == f"train: {tmp_path}/train/a/00.png: the file is empty (0 bytes)"
    assert lines[21:24] == [
        f"train: {tmp_path}/train/b/17.png: the file is empty (0 bytes)",
        "train: and 2 more",
        "evaluation: reading 4 examples of folder",
    ]
    assert lines[24].startswith(f"evaluation: {damaged}: damaged: ")
    assert len(lines) == 25


def test_check_reads_unlabelled_data(tmp_path, capsys):
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "1.png")
    config = configuration.default_config()
    config.data.update(source="folder", dir=str(tmp_path))
    preview.check_examples(config)
    assert "every example is readable: 1\n" in capsys.readouterr().out
