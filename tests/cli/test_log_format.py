"""Log messages have no prefix of absl, and libraries do not talk about themselves."""

import importlib.util
import logging
import os
from unittest import mock

import pytest
from jax._src import xla_bridge

from ssl_jax.cli import log_format


def record(path, level=logging.WARNING, text="3 files %s"):
    return logging.LogRecord("absl", level, path, 1, text, ("skipped",), None)


def test_a_warning_of_ours_is_one_plain_line():
    shown = record("/x/site-packages/ssl_jax/data/folder.py")
    assert log_format.is_shown(shown)
    assert log_format.Formatter().format(shown) == "warning: 3 files skipped"


def test_errors_of_xla_are_shown_and_the_environment_overrides_the_levels(monkeypatch):
    monkeypatch.setattr("absl.logging.set_verbosity", lambda level: None)
    monkeypatch.setattr("absl.logging.get_absl_handler", mock.MagicMock())
    for name in log_format.LEVELS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TPU_MIN_LOG_LEVEL", "0")
    monkeypatch.setattr(os, "environ", environment := dict(os.environ))
    log_format.quieten_libraries()
    assert environment["TF_CPP_MIN_LOG_LEVEL"] == "2"  # 3 would hide XLA's errors
    assert environment["TPU_STDERR_LOG_LEVEL"] == "3"
    assert environment["TPU_MIN_LOG_LEVEL"] == "0"


@pytest.mark.parametrize("name", ["orbax.checkpoint", "clu", "tensorflow", "tensorflow_datasets"])
def test_only_errors_of_libraries_are_shown(name, monkeypatch):
    monkeypatch.setattr("absl.logging.get_verbosity", lambda: -1)
    path = f"{next(iter(importlib.util.find_spec(name).submodule_search_locations))}/utils.py"
    assert not log_format.is_shown(record(path))
    assert log_format.is_shown(record(path, logging.ERROR))
    monkeypatch.setattr("absl.logging.get_verbosity", lambda: 0)
    assert log_format.is_shown(record(path))


@pytest.mark.parametrize("path", [xla_bridge.__file__, "/home/me/orbax/ssl_jax/rundir/workdir.py"])
def test_warnings_of_jax_and_of_files_below_a_folder_of_this_name_are_shown(path, monkeypatch):
    """JAX warns that it found a GPU or TPU, but no library for it, and uses the CPU."""
    monkeypatch.setattr("absl.logging.get_verbosity", lambda: -1)
    assert log_format.is_shown(record(path))
