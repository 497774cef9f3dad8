import pathlib

import pytest
from written_run import write_run


@pytest.fixture
def finished_run(tmp_path) -> pathlib.Path:
    return write_run(tmp_path / "run")
