"""A mistake in a config file is told with its file and line; --help-config shows any config."""

import os
import re
import subprocess
import sys

import pytest
from absl import flags

from ssl_jax import config as configuration
from ssl_jax.cli import config_file, help_text
from ssl_jax.errors import BAD_CONFIG, USAGE, Fault


def refusal(value):
    with pytest.raises(Fault) as refused:
        config_file.load(str(value))
    assert refused.value.code == BAD_CONFIG
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = (\n", "{file}, line 2: SyntaxError: '(' was never closed"),
        ("def get_config():\n    pass\n    return 1 / 0\n", "{file}, line 3: ZeroDivisionError"),
        ("import nothing_like_this\n", "{file}, line 1: ModuleNotFoundError: No module"),
        ("def get_config():\n    return {}\n", "{file}: get_config returned dict, not a Conf"),
        ("x = 1\n", "{file} has no function get_config(variant)"),
    ],
)
def test_a_mistake_in_the_file_names_file_and_line(text, message, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(text)
    assert message.format(file=file) in refusal(file)
    assert len(refusal(file).splitlines()) == 1


def test_a_missing_file_suggests_a_similar_one(tmp_path):
    (tmp_path / "mine.py").touch()
    assert f"did you mean '{tmp_path / 'mine.py'}'?" in refusal(tmp_path / "mien.py")
    assert "the shipped config is --config=simclr:VARIANT" in refusal(tmp_path / "simclr.py")
    assert "the shipped config --config=simclr:VARIANT?" in refusal("simclrr.py")


def test_an_unknown_variant_is_told():
    path = config_file.config_path("simclr:cifar_10")
    assert f"--config={path}: unknown variant 'cifar_10'; did you mean 'cifar10'?" in refusal(path)


def saved_run(folder, **changes):
    given = config_file.load(config_file.config_path("byol:cifar10_cpu"))
    saved = given.to_dict() | changes
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(configuration.to_json(saved))
    return given


def test_the_config_of_a_run_is_a_config(tmp_path):
    given = saved_run(tmp_path / "my:run")
    loaded = config_file.load(config_file.config_path(f"{tmp_path}/my:run/config.json"))
    assert configuration.flatten(loaded) == configuration.flatten(given)
    assert configuration.problems(loaded) == []


def test_an_old_run_keeps_the_values_that_its_config_lacks(tmp_path):
    method = {"name": "byol", "momentum": 0.97, "hidden_dim": 256, "output_dim": 128}
    saved_run(tmp_path, method=method)
    loaded = config_file.load(config_file.config_path(f"{tmp_path}/config.json"))
    old = {"target_init": "own", "output_norm": False, "last_bias": True}
    assert loaded.method.to_dict() == method | old


def test_a_fine_tuned_run_has_no_config_to_train(tmp_path):
    saved_run(tmp_path, finetune={"pretrained": "x"})
    message = refusal(config_file.config_path(f"{tmp_path}/config.json"))
    assert f"{tmp_path}/config.json is not of a run of `ssl-jax train`" in message


@pytest.mark.parametrize("text", ['{"a": 1}', '{"method": {"name": "byol"}}'])
def test_a_config_without_method_or_model_is_not_of_a_run(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    message = refusal(config_file.config_path(f"{tmp_path}/config.json"))
    assert message.startswith(f"{tmp_path}/config.json is not of a run of `ssl-jax train`")


def test_a_folder_is_no_config(tmp_path):
    assert f"{tmp_path} is a folder; of a run, name its config.json" in refusal(tmp_path)


def test_the_config_of_a_run_imports_no_module_that_is_not_allowed(tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    saved_run(tmp_path / "run", method={"name": "evil:make"})
    command = [sys.executable, "-m", "ssl_jax.train", f"--config={tmp_path}/run/config.json"]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path}/new"],
        capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": f"{os.getcwd()}{os.pathsep}{tmp_path}"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "imported" not in done.stderr
    assert "evil" in done.stderr
    assert "SSL_JAX_MODULES" in done.stderr
    assert not (tmp_path / "new").exists()


def test_config_help_shows_values_and_the_fields_of_the_method():
    given = config_file.load(config_file.config_path("moco_v2:cifar10"))
    text = help_text.config(given, "method")
    assert re.search(r"^  method\.queue_size +32768 +Number of keys in the queue, K;", text, re.M)
    assert "data.source" not in text
    whole = help_text.config(given, "")
    assert "'tfds:cifar10'" in whole
    assert "(identity)" in whole
    assert max(map(len, whole.splitlines())) <= help_text.WIDTH
    defaults = help_text.config(None, "optim.lr")
    assert "  optim.lr              required  Base learning rate" in defaults
    with pytest.raises(Fault, match=r"optm: no such field; did you mean 'optim") as refused:
        help_text.config(None, "optm")
    assert refused.value.code == USAGE


def test_an_error_in_an_imported_module_names_this_module(tmp_path, monkeypatch):
    (tmp_path / "shared_recipe.py").write_text("def broken():\n    return {}['missing']\n")
    file = tmp_path / "mine.py"
    file.write_text("import shared_recipe\ndef get_config():\n    return shared_recipe.broken()\n")
    monkeypatch.syspath_prepend(tmp_path)
    raised = f"(raised in {tmp_path / 'shared_recipe.py'}, line 2)"
    assert refusal(file) == f"{file}, line 3: KeyError: 'missing' {raised}"


def test_a_file_that_defines_flags_is_loaded_again(tmp_path):
    """ml_collections loads the file first, as a module of this name."""
    flags.DEFINE_string("flag_of_mine", "", "", module_name="config_config")
    file = tmp_path / "mine.py"
    file.write_text("from absl import flags\nflags.DEFINE_string('flag_of_mine', '', '')\n1 / 0\n")
    try:
        assert f"{file}, line 3: ZeroDivisionError" in refusal(file)
    finally:
        del flags.FLAGS.flag_of_mine
