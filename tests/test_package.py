"""The installed package: the command `ssl-jax`, the shipped configs, the metadata.

`.ci/package` builds a wheel and trains with it; these tests check what needs no installation.
"""

import ast
import fnmatch
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import ssl_jax
from ssl_jax import __main__ as command
from ssl_jax import cli, configs
from ssl_jax.errors import BAD_CONFIG, Fault

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*arguments, cwd=ROOT, module="ssl_jax"):
    """Runs `python -m ssl_jax`, which is what `ssl-jax` runs."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def verbs():
    """Modules and packages of ssl_jax that run as a command."""
    for path in [*(ROOT / "ssl_jax").glob("*.py"), *(ROOT / "ssl_jax").glob("*/__main__.py")]:
        if "\nif __name__ ==" in path.read_text() and path.parent / path.name != _entry():
            yield path.parent.name if path.name == "__main__.py" else path.stem


def _entry():
    return ROOT / "ssl_jax" / "__main__.py"


def test_help_lists_every_verb_with_one_line():
    result = run("--help")
    assert result.returncode == 0, result.stderr
    assert set(command.VERBS) == set(verbs())
    lines = result.stdout.splitlines()
    for verb, summary in command.VERBS.items():
        assert sum(line.split() == [verb, *summary.split()] for line in lines) == 1
    assert max(map(len, lines)) <= 100


def test_command_imports_nothing_before_the_verb():
    code = f"""
import sys
before = set(sys.modules)
import ssl_jax.__main__
sys.argv = ["ssl-jax", "trian"]
assert ssl_jax.__main__.main() == 64
packages = {{name.split(".")[0] for name in set(sys.modules) - before}}
assert not packages - {{"ssl_jax"}} - set(sys.stdlib_module_names), packages
assert {str(ROOT)!r} in sys.path and "" not in sys.path
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True, env={"PYTHONPATH": str(ROOT)})


def test_command_imports_nothing_from_the_current_folder(tmp_path):
    """The current folder may be a downloaded run."""
    script, folder = tmp_path / "bin" / "ssl-jax", tmp_path / "downloaded"
    script.parent.mkdir()
    script.write_text("import sys; from ssl_jax.__main__ import main; sys.exit(main())")
    folder.mkdir()
    for name in ("absl", "ml_collections", "numpy", "jax", "tensorflow"):
        (folder / f"{name}.py").write_text("raise SystemExit(99)")
    result = subprocess.run(
        [sys.executable, script, "train", "--config=simclr:digits", "--workdir=x", "--config.lr=1"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 78, result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("trian",), 64, "did you mean 'train'?"),
        (("xyzzy",), 64, "choose from: train, finetune"),
        ((), 64, "Verbs:"),
        (("train", "--workdir=x"), 64, "--config is missing"),
        (("evaluate", "--workdir=missing"), 66, "missing"),
        (("supervise",), 64, "supervise"),
    ],
)
def test_mistakes_exit_with_the_documented_code(arguments, code, message, tmp_path):
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("verb", ["train", "export"])
def test_verb_runs_its_module(verb, tmp_path):
    """`train` is a module, `export` a package. The help lists flags of all modules."""
    ours, theirs = run(verb, "--help", cwd=tmp_path), run("--help", module=f"ssl_jax.{verb}")
    assert ours.returncode == theirs.returncode == 0, ours.stderr
    assert ours.stdout == theirs.stdout
    assert re.search(r"^  --workdir=VALUE  ", ours.stdout, re.M)
    if verb == "train":
        assert re.search(r"^  --config=VALUE  ", ours.stdout, re.M)


def test_version():
    result = run("--version")
    assert result.stdout == f"ssl-jax {ssl_jax.__version__}\n"


def test_shipped_configs_are_found_by_name():
    files = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"common"}
    assert set(configs.names()) == files
    for name in files:
        assert cli.config_path(f"{name}:folder") == f"{ROOT / 'configs' / name}.py:folder"
    assert cli.config_path("simclr:a,augment=b") == f"{ROOT}/configs/simclr.py:a,augment=b"
    for path in ("mine.py", "mine.py:small", "configs/simclr.py:digits", "/a/b:c"):
        assert cli.config_path(path) == path


@pytest.mark.parametrize(("name", "near"), [("simcrl:digits", "simclr"), ("moco-v2", "moco_v2")])
def test_misspelt_config_suggests_the_nearest(name, near):
    with pytest.raises(Fault, match=f"did you mean '{near}'") as caught:
        cli.config_path(name)
    assert caught.value.code == BAD_CONFIG


def test_shipped_configs_load_from_a_folder_with_other_configs(tmp_path):
    """Another project's `configs` package in the working folder is never imported."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "common.py").write_text("raise SystemExit('wrong module')")
    for flag in (["--config=simclr:digits"], ["--config", "simclr:digits"]):
        result = run("train", *flag, "--workdir=run", "--config.optim.lrr=1", cwd=tmp_path)
        assert result.returncode == 78, result.stderr
        assert "did you mean 'optim.lr" in result.stderr
    result = run("train", "--config=configs/simclr.py:digits", "--workdir=run", cwd=tmp_path)
    assert "no file configs/simclr.py" in result.stderr
    assert "--config=simclr:VARIANT" in result.stderr


def test_own_config_file_imports_the_shared_functions(tmp_path):
    text = (ROOT / "configs" / "simclr.py").read_text()
    (tmp_path / "mine.py").write_text(text)
    flags = ["--config=mine.py:digits", "--workdir=run", "--config.optim.lrr=1"]
    result = run("train", *flags, cwd=tmp_path)
    assert "did you mean 'optim.lr" in result.stderr, result.stderr


def test_configs_import_nothing_by_the_name_of_their_folder():
    """`import configs` works in a checkout only."""
    for path in (ROOT / "configs").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", [])]
            if isinstance(node, ast.ImportFrom):
                names = [node.module]
            assert "configs" not in [str(name).split(".")[0] for name in names], path


def test_every_file_of_the_package_is_installed():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    for path in (ROOT / "ssl_jax").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            kind = [path.suffix == ".py", any(fnmatch.fnmatch(path.name, p) for p in patterns)]
            assert any(kind), f"{path}: add it to package-data in pyproject.toml"
            assert (path.parent / "__init__.py").is_file(), path


def test_requirements_exist_once():
    dynamic = PROJECT["tool"]["setuptools"]["dynamic"]
    extras = dynamic["optional-dependencies"]
    assert set(extras) == {"cuda", "tpu", "torch", "dev", "docs"}
    files = [*dynamic["dependencies"]["file"], *(f for e in extras.values() for f in e["file"])]
    assert sorted(files) == sorted(path.name for path in ROOT.glob("requirements*.txt"))
    for name in files:  # setuptools understands no options, such as -r
        assert not re.search(r"^\s*-", (ROOT / name).read_text(), re.M), name
