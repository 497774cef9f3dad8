"""Two processes of a job that differ in one thing: both refuse to train and name the difference.

The slow test has a case for every kind of difference and prints a table:

    python -m pytest -m slow -s tests/jobs/test_different_processes.py
"""

import shutil

import numpy as np
import pytest
from PIL import Image
from test_multiple_processes import start
from test_train import ROOT

from ssl_jax.errors import BAD_CONFIG, BAD_DATA, MISSING_INPUT

CONFIG = f"{ROOT}/configs/simclr.py:digits"


def package(folder, line=""):
    """Copies the package to a folder and adds a line to one of its files."""
    for name in ("ssl_jax", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "ssl_jax" / "losses" / "pairs.py").open("a") as file:
        file.write(line)
    return {"cwd": folder}


def test_both_processes_refuse_to_start_and_name_config_and_code(tmp_path):
    # Separate workdirs, as on hosts that share no file system, and neither is created.
    other = {"flags": ("--config.train.seed=1", "--config.optim.lr=0.5")}
    other |= package(tmp_path / "copy", "# another version\n")
    results = start(
        lambda number: tmp_path / str(number), own=lambda number: other if number else {}
    )
    for code, output in results:
        assert code == BAD_CONFIG, output
        assert "process 1 differs from process 0:\n  code of ssl_jax/losses/pairs.py: " in output
        assert "\n  optim.lr: 0.005 on process 0, 0.5 on process 1\n  train.seed: 0 on" in output
        assert "Start the same command with the same code and libraries on every host" in output
        assert "Traceback" not in output
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


OTHER_VERSION = """
import importlib.metadata, runpy
version = importlib.metadata.version
importlib.metadata.version = lambda name: "9.9" if name == "optax" else version(name)
runpy.run_module("ssl_jax.train", run_name="__main__", alter_sys=True)
"""
FOLDER = "--config.data.source=folder"


def pictures(folder, *, count=80, side=16, first="cat"):
    """Writes pictures of two classes to folder/train."""
    rng = np.random.default_rng(0)
    for i in range(count):
        path = folder / "train" / ("dog" if i % 2 else first) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (side if i == 7 else 16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return {"flags": (f"--config.data.dir={folder}",)}


def module(folder, line=""):
    """Writes a method outside the package."""
    folder.mkdir()
    (folder / "mine.py").write_text(f"from ssl_jax.methods.simclr import make\n{line}")
    return {"env": {"PYTHONPATH": str(folder)}}


def weights(folder, seed):
    """Trains a run at folder/run."""
    folder.mkdir()
    code, output = start(folder / "run", f"--config.train.seed={seed}", processes=1)[0]
    assert code == 0, output
    return {"cwd": folder, "env": {"PYTHONPATH": str(ROOT)}}


FLAGS = {
    "train.seed": 1,
    "train.steps": 5,
    "train.checkpoint_every": 1,
    "train.log_every": 2,
    "optim.lr": 0.5,
    "method.temperature": 0.7,
    "augment.crop_area": "(0.5,1.0)",
    "model.zero_gamma": True,
    "eval.knn_k": 10,
}


def second(**own):
    """Only process 1 gets something else."""
    return lambda path: ({}, own)


def both(make, one, other):
    """Process 0 gets make(folder, **one) and process 1 make(other folder, **other)."""
    return lambda path: (make(path / "a", **one), make(path / "b", **other))


# Name -> flags of both processes, what each of them gets, exit code, start of the message's line.
CASES = {
    name: ((), second(flags=(f"--config.{name}={value}",)), BAD_CONFIG, name)
    for name, value in FLAGS.items()
}
CASES |= {
    "library": ((), second(program=("-c", OTHER_VERSION)), BAD_CONFIG, "version of optax"),
    "JAX setting": ((), second(env={"JAX_ENABLE_X64": "1"}), BAD_CONFIG, "jax_enable_x64"),
    "variable": ((), second(env={"TF_ENABLE_ONEDNN_OPTS": "1"}), BAD_CONFIG, "TF_ENABLE_ONEDNN"),
    "code": ((), both(package, {}, {"line": "#\n"}), BAD_CONFIG, "code of ssl_jax/losses/pairs.py"),
    "code outside": (
        ("--config.method.name=mine:make",),
        both(module, {}, {"line": "#\n"}),
        BAD_CONFIG,
        "code of mine.py",
    ),
    "weights": (
        ("--config.model.init=run",),
        both(weights, {"seed": 1}, {"seed": 2}),
        BAD_DATA,
        "model.init['params']",
    ),
    "picture": (
        (FOLDER,),
        both(pictures, {}, {"side": 17}),
        BAD_DATA,
        "train data: names and sizes of files",
    ),
    "class": (
        (FOLDER,),
        both(pictures, {}, {"first": "bird"}),
        BAD_DATA,
        'train data: class 0: "cat" on process 0, "bird"',
    ),
    "count": (
        (FOLDER,),
        both(pictures, {}, {"count": 82}),
        BAD_DATA,
        "train data: examples: 80 on process 0, 82",
    ),
    "place of equal data": ((FOLDER,), both(pictures, {}, {}), 0, ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_each_difference_is_named(case, tmp_path, capsys):
    flags, prepare, expected, field = CASES[case]
    owns = prepare(tmp_path)
    results = start(tmp_path / "run", *flags, own=owns.__getitem__, config=CONFIG)
    lines = []
    for code, output in results:
        assert code == expected, output
        assert "Traceback" not in output
        if expected:
            found = [line.strip() for line in output.splitlines() if "on process 0," in line]
            lines.append(next(line for line in found if line.startswith(field)))
            assert "process 1 differs from process 0:" in output
            assert "step 1/" not in output
    with capsys.disabled():
        print(f"\n| {case} | {[code for code, _ in results]} | {' | '.join(set(lines))} |")


@pytest.mark.slow
def test_data_missing_on_one_host_ends_both_processes_with_one_code(tmp_path):
    """The sizes of the config :folder are set from the data, before the processes compare them."""
    owns = [pictures(tmp_path / "a"), {"flags": (f"--config.data.dir={tmp_path / 'missing'}",)}]
    results = start(
        tmp_path / "run", own=owns.__getitem__, config=f"{ROOT}/configs/simclr.py:folder"
    )
    assert [code for code, _ in results] == [MISSING_INPUT, MISSING_INPUT]
    assert "process 1 ended with exit code 66" in results[0][1]
