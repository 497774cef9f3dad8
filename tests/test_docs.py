"""What the documents promise: every command names a verb, a config and flags that exist."""

import importlib
import pathlib
import re
import shlex
import sys

import pytest

from ssl_jax import config as configuration
from ssl_jax import finetune

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("configs/*.py")]
SOURCES += [*ROOT.glob("ssl_jax/*.py"), *ROOT.glob("ssl_jax/*/__main__.py")]
COMMAND = re.compile(r"python -m ((?:ssl_jax|benchmarks)\.\w+)((?:[^`\n\\]|\\\n)*)")


def commands():
    for path in SOURCES:
        for module, rest in COMMAND.findall(path.read_text()):
            yield pytest.param(module, rest.replace("\\\n", " "), id=f"{path.name}: {module}")


def load(argument):
    """The config of `configs/FILE.py:VARIANT`."""
    file, _, variant = argument.partition(":")
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    return module.get_config(variant) if variant else module.get_config()


@pytest.mark.parametrize(("module", "rest"), list(commands()))
def test_command(module, rest):
    assert importlib.util.find_spec(module), f"no module {module}"
    words = shlex.split(rest.replace("[", "").replace("]", ""), comments=True)
    flags = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
    config = configuration.default_config()
    where = flags.get("config", "")
    if "VARIANT" not in where and "FILE" not in where and where not in ("", "..."):
        config = load(where)
    if module == "ssl_jax.finetune":
        config = finetune.overridable()
    fields = configuration.flatten(config)
    for name in flags:
        if name.startswith(("config.", "eval.")) and "FIELD" not in name:
            assert name.removeprefix("config.") in fields, name


def test_other_views_by_argument():
    simclr = importlib.import_module("configs.simclr")
    config = simclr.get_config("imagenet,augment=byol")
    assert config.augment.second.to_dict() == {"blur": 0.1, "solarize": 0.2}
    assert config.augment.blur == 1
    assert simclr.get_config("cifar10_cpu,augment=moco_v2").augment.size == 24


def test_python_in_the_readme_runs():
    import jax

    for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S):
        names = {"z": jax.random.normal(jax.random.key(0), (4, 2, 8))}
        exec(compile(block, "README.md", "exec"), names)
        assert names["loss"] > 0


def test_nothing_names_a_machine():
    banned = re.compile(r"(?<![\w.])/(?:work|root|home|tmp)/")
    folders = ("ssl_jax", "configs", "benchmarks", "docs", "launch")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.[pm][yd]")]
    for path in [*files, ROOT / "README.md", ROOT / "Makefile"]:
        assert not banned.search(path.read_text()), path
    assert sys.version_info >= (3, 11)
