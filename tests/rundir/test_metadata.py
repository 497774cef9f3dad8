"""Metadata of a run: shareable commands and versions of libraries."""

import importlib.metadata
import sys

import pytest

from ssl_jax.rundir import metadata, versions


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("--workdir=/home/anna/runs/x", "--workdir=.../x"),
        ("--workdir=~/runs/x", "--workdir=.../x"),
        ("--workdir=~anna", "--workdir=.../"),
        ("/scratch/anna/x", ".../x"),
        ("--config.data.dir=/home/anna", "--config.data.dir=.../"),
        ("--config.data.dir=/Users/Anna Lee/my pictures", "--config.data.dir=.../my pictures"),
        ("--config=/home/anna/mine.py:mine", "--config=.../mine.py:mine"),
        ("--config.optim.frozen=('/a/b', '/home/c')", "--config.optim.frozen=('.../b', '.../')"),
        *(
            (unchanged, unchanged)
            for unchanged in (
                "--config=configs/simclr.py:digits",
                "--config.optim.frozen=('encoder/patch_embed',)",
                "--config.data.source=tfds:cifar10/plain",
                "--workdir=runs/x",
            )
        ),
    ],
)
def test_commands_in_metadata_name_no_user(argument, shown):
    assert metadata._shareable(argument) == shown


@pytest.mark.parametrize("name", ["tensorflow", "tensorflow_macos", "tf_nightly.cpu"])
def test_tensorflow_is_found_by_any_distribution_name(name, tmp_path, monkeypatch):
    packages = {
        name: "tensorflow/__init__.py,sha256=x,1",
        "tensorflow_io": "tensorflow_io/__init__.py,sha256=x,1",
        "tfx": "tfx/tensorflow/__init__.py,sha256=x,1",
    }
    for distribution, record in packages.items():
        folder = tmp_path / f"{distribution}-2.99.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\n")
        (folder / "RECORD").write_text(f"{folder.name}/METADATA,,\n{record}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert versions._tensorflow() == [name.replace("_", "-").replace(".", "-")]


def test_versions_are_those_of_the_distributions_that_provide_the_modules():
    found, distributions = versions.installed(), importlib.metadata.packages_distributions()
    for module in ("tensorflow", "jaxlib", "PIL", "numpy"):
        assert any(
            found.get(name.replace("_", "-").lower()) == importlib.metadata.version(name)
            for name in distributions[module]
        )
