"""Mistakes on the command line give one clear message and the documented exit code, in seconds."""

import os
import pathlib
import re
import resource
import subprocess
import sys

import pytest

from configs import cpc_audio
from ssl_jax import config as configuration

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIGITS = "--config=configs/simclr.py:digits"


def ssl_jax(verb, *arguments, **environment):
    """Runs a verb in a new process; returns (exit code, stderr, CPU seconds)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, "-m", f"ssl_jax.{verb}", *arguments],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in result.stderr, result.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result.returncode, result.stderr, seconds


@pytest.mark.parametrize(
    ("argument", "code", "text"),
    [
        ("--config.optim.lrr=1", 78, "did you mean 'optim.lr"),
        ("--config.opt.lr=1", 78, "did you mean 'optim.lr'"),
        ("--config.train.batch_size=many", 78, "batch_size"),
        ("--config.train.batch_size=7.5", 78, "batch_size"),
        ("--config.train.batch_size=-2", 78, "at least 1"),
        ("--config.optim.name=lasr", 78, "did you mean 'lars'"),
        ("--config.model.name=resnt18", 78, "did you mean 'resnet18'"),
        ("--config.eval.labels_per_class=(1,)", 78, "at least 2"),
        ("--config.eval.protocols=('knn','few_shots')", 78, "did you mean 'few_shot'"),
        ("--config.method.name=simcrl", 78, "did you mean 'simclr'"),
        ("--config.data.source=digit", 78, "did you mean 'digits'"),
        ("--config.augment.crop_area=(0.5,0.2)", 78, "low <= high"),
        ("--config.train.microbatch=64", 78, "model.bn_group"),
        ("--config.train.noise_scale=True", 78, "needs train.microbatch"),
        ("--batch_size=8", 64, "--config.train.batch_size or --config.eval.batch_size?"),
        ("--optim.lr=1", 64, "did you mean --config.optim.lr?"),
        ("--workdr=x", 64, "unknown flag --workdr; did you mean --workdir?"),
        ("--config.method.tempreature=1", 78, "did you mean 'method.temperature'?"),
        ("--config.bs=1", 78, "bs: unknown config field; did you mean 'train.batch_size'?"),
        ("--help-config=method.lr", 64, "no such field; did you mean 'optim.lr'?"),
        ("--workdir=", 64, "--workdir= is empty"),
        ("--config.model=resnet50", 78, "is a section of the config; set one of its fields"),
        ("stray", 64, "stray"),
    ],
)
def test_mistakes_are_reported_in_two_seconds(argument, code, text, tmp_path):
    exit_code, message, seconds = ssl_jax("train", DIGITS, f"--workdir={tmp_path}/run", argument)
    assert exit_code == code, message
    assert text in message
    assert len(message.strip().splitlines()) <= 3
    assert not (tmp_path / "run").exists()
    # CPU time, because other work of the machine lengthens the wall-clock time.
    assert seconds < 2, f"took {seconds:.1f} s"


def test_all_problems_are_reported_at_once(tmp_path):
    wrong = ["--config.optim.lr=-1.0", "--config.augment.flip=2.0", "--config.optim.name=adam"]
    code, message, _ = ssl_jax("train", DIGITS, f"--workdir={tmp_path}/run", *wrong)
    assert code == 78
    assert all(field in message for field in ("optim.lr", "augment.flip", "did you mean 'adamw'"))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ("configs/simclr.py:digit", "digits, cifar10"),
        ("simclr:digit", "did you mean 'digits'?"),
        ("simcrl:digits", "did you mean 'simclr'?"),
        ("configs/simclr.py:digits,augment=moco", "moco_v2"),
        ("configs/nothing.py", "nothing.py"),
        ("simclr", "choose from: simclr:cifar10, simclr:cifar10_adversarial, simclr:cifar10_cpu,"),
    ],
)
def test_missing_config_or_variant_is_named(config, text, tmp_path):
    code, message, _ = ssl_jax("train", f"--config={config}", f"--workdir={tmp_path}/run")
    assert code == 78
    assert text in message


def test_missing_config_flag_is_named(tmp_path):
    code, message, _ = ssl_jax("train", "--config.optim.lr=1", f"--workdir={tmp_path}/run")
    assert code == 64
    assert "--config is missing; see --help" in message


def test_finetune_takes_no_config_file(tmp_path):
    code, message, _ = ssl_jax("finetune", "--config=simclr:digits", f"--workdir={tmp_path}/run")
    assert code == 64
    assert "this verb takes the config of the run" in message


def test_missing_workdir_flag_is_named():
    code, message, _ = ssl_jax("train", DIGITS)
    assert code == 64
    assert "--workdir is missing; see --help" in message


def test_workdir_that_is_a_file_stays_unchanged(tmp_path):
    (tmp_path / "run").write_text("mine")
    code, message, _ = ssl_jax("train", DIGITS, f"--workdir={tmp_path}/run")
    assert code == 73
    assert "cannot write the workdir" in message
    assert (tmp_path / "run").read_text() == "mine"


def test_missing_runs_and_weights_are_named(tmp_path):
    for verb in ("evaluate", "report"):
        code, message, _ = ssl_jax(verb, f"--workdir={tmp_path}/none")
        assert code == 66, message
        assert "none" in message
    code, message, _ = ssl_jax(
        "evaluate", f"--workdir={tmp_path}/new", f"--pretrained={tmp_path}/none"
    )
    assert (code, "none is missing" in message) == (66, True), message
    assert not (tmp_path / "new").exists()
    code, message, _ = ssl_jax("evaluate", f"--workdir={tmp_path}", "--config.eval.knn_k=5")
    assert (code, "uses the run's config; did you mean --eval.knn_k?" in message) == (64, True)
    code, message, _ = ssl_jax("evaluate", f"--workdir={tmp_path}", "--protocols=kn")
    assert (code, "did you mean --eval.protocols?" in message) == (64, True)


@pytest.mark.parametrize(
    ("argument", "code", "text"),
    [
        ("--config.optim.lrr=1", 78, "did you mean 'optim.lr"),
        ("--config.finetune.head_layr=1", 78, "did you mean 'finetune.head_layer'"),
        ("--config.finetune.fraction=2.0", 78, "in (0, 1]"),
        ("--config.finetune.fraction=0.1 --config.finetune.labels_per_class=3", 78, "one of the"),
        ("--config.method.temperature=1.0", 78, "method.temperature: unknown"),
        ("--pretrained=none", 66, "no run at"),
    ],
)
def test_mistakes_in_finetune_are_reported_in_two_seconds(argument, code, text, tmp_path):
    config = configuration.to_json(configuration.default_config())
    (tmp_path / "config.json").write_text(config)
    exit_code, message, seconds = ssl_jax(
        "finetune", f"--pretrained={tmp_path}", f"--workdir={tmp_path}/run", *argument.split()
    )
    assert exit_code == code, message
    assert text in message
    assert not (tmp_path / "run").exists()
    assert seconds < 2, f"took {seconds:.1f} s"


def test_help_lists_the_flags():
    result = subprocess.run(
        [sys.executable, "-m", "ssl_jax.train", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert "--config" in result.stdout
    assert "--workdir" in result.stdout
    assert result.stdout.startswith("usage: ssl-jax train ")
    assert "--config=simclr:digits" in result.stdout
    assert not re.search(r"python -m|configs/", result.stdout)


def test_misspelt_evaluation_field_suggests_the_nearest(tmp_path):
    code, message, _ = ssl_jax("evaluate", f"--workdir={tmp_path}", "--eval.label_per_class=1")
    assert code == 78
    assert "did you mean 'eval.labels_per_class" in message


@pytest.mark.parametrize(
    ("verb", "flags", "code", "text"),
    [
        ("evaluate", ["--data.pattern={digit}_{rest}", "--data.dir=new"], 76, "no checkpoint"),
        ("evaluate", ["--data.split=all"], 78, "--workdir=NEW --pretrained="),
        ("evaluate", ["--data.max_megapixels=5"], 78, "source 'audio' has no such field"),
        ("finetune", ["--config.data.channels=1"], 78, "data.channels: the source 'audio' has no"),
    ],
)
def test_flags_of_data_are_those_of_the_runs_source(tmp_path, verb, flags, code, text):
    run = tmp_path / "run"
    run.mkdir()
    config = cpc_audio.get_config("spoken_digit")
    config.data.dir = str(tmp_path)
    (run / "config.json").write_text(configuration.to_json(config))
    new = [f"--pretrained={run}", f"--workdir={tmp_path / 'new'}"]
    where = [f"--workdir={run}"] if verb == "evaluate" else new
    exit_code, message, _ = ssl_jax(verb, *where, *flags)
    assert (exit_code, text in message) == (code, True), message
