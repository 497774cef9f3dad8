"""A damaged config.json of a workdir is a Fault that names the file."""

import json

import pytest

from ssl_jax import config as configuration
from ssl_jax.config import default_config
from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.rundir import workdir
from ssl_jax.training import command

WRONG = {
    "empty": b"",
    "torn": b'{"data": {"sou',
    "binary": b"\xff\xfe\x00",
    "list": b"[1]",
    "deep": b"[" * 100_000,
    "deep but closed": b'{"data": ' + b"[" * 100 + b"]" * 100 + b"}",
    "section is a list": b'{"data": []}',
    "section is a number": b'{"train": 5}',
    "section is null": b'{"optim": null}',
    "name is a list": b'{"method": {"name": []}}',
    "value of another type": b'{"train": {"batch_size": "many"}}',
    "name with a dot": b'{"a.b": 1}',
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_loading_names_the_file(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(Fault, match=r"config\.json") as fault:
        configuration.load(tmp_path)
    assert fault.value.code == BAD_DATA


@pytest.mark.parametrize("kind", ["empty", "torn", "binary", "list", "deep"])
def test_a_resume_goes_on_without_a_readable_config(tmp_path, kind, caplog):
    (tmp_path / "config.json").write_bytes(WRONG[kind])
    command.check_config(default_config(), workdir.Workdir(tmp_path), [])
    assert [record.message.count("config.json") for record in caplog.records] == [1]


def test_a_config_is_loaded_as_it_was_written(tmp_path):
    config = default_config()
    config.optim.lr = 1e39  # beyond float32
    config.model.name = "resnet18"
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert configuration.load(tmp_path).optim.lr == 1e39
