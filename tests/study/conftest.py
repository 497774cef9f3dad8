"""Studies whose files are written by hand: nothing is trained."""

import pytest
from written_study import write_study

from configs.simclr import get_config


@pytest.fixture
def config():
    """The digits variant, by its own batch size of 128 and constant rate of 0.005."""
    return get_config("digits")


@pytest.fixture
def study_of(tmp_path, config):
    """Writes a study of a grid: see `write_study`."""
    return lambda text, **more: write_study(tmp_path / "study", config, text, **more)
