"""Fixtures that write the files of studies by hand, without training."""

import pytest
from written_study import write_study

from configs.simclr import get_config


@pytest.fixture
def config():
    """Returns the digits variant, with batch size 128 and a constant rate of 0.005."""
    return get_config("digits")


@pytest.fixture
def study_of(tmp_path, config):
    """Returns a function that writes a study of a grid, see `write_study`."""
    return lambda grid, **options: write_study(tmp_path / "study", config, grid, **options)
