"""A folder of two checkpoints, saved once for all tests of a file."""

import shutil

import pytest
from saved_steps import fill


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A folder with the steps 350 and 400; tests use copies of it."""
    directory = tmp_path_factory.mktemp("two") / "checkpoints"
    fill(directory, [350, 400])
    return directory


@pytest.fixture
def directory(two_steps, tmp_path):
    """A copy of `two_steps` that the test may change."""
    return shutil.copytree(two_steps, tmp_path / "checkpoints")
