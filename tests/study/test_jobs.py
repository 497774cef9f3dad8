"""Jobs: which cells, in which words, by which templates."""

import re

import pytest

from ssl_jax.errors import USAGE, Fault
from ssl_jax.study import jobs

RENDER = jobs.ROOT / "launch" / "render.sh"
GKE = ["IMAGE=registry/image:1", "CLAIM=shared", "SLICES=1", "CHIPS=4", "ACCELERATOR=tpu-v6e-slice"]


def lines(study, kind, values=(), at=""):
    return jobs.write(study, study.cells, kind, values, at).splitlines()


def test_an_array_has_the_cells_that_are_not_done_yet_each_training_once(study_of):
    study = study_of("batch=64,128,256;lr_rule=linear,sqrt", skip=[
        f"batch={b}-lr_rule={rule}" for b in (64, 128) for rule in ("linear", "sqrt")
    ])  # fmt: skip
    (line,) = (line for line in lines(study, "slurm") if line.startswith("sbatch"))
    assert '--array=0-2 "$@" launch/slurm.sbatch' in line
    assert line.endswith(f"-m ssl_jax.study --workdir={study.path} --cell=slurm")
    script = (study.path / "jobs" / "submit.sh").read_text().splitlines()
    assert script[-2:] == [f"cd {jobs.ROOT}", line]


def test_cells_of_other_devices_are_an_array_of_their_own(study_of):
    study = study_of("batch=64;devices=1,8,16", skip=[f"batch=64-devices={n}" for n in (1, 8, 16)])
    found = [line for line in lines(study, "slurm", ["GPUS_PER_NODE=8"]) if "sbatch " in line]
    assert [re.findall(r"--(?:nodes|ntasks-per-node|gres|array)=\S+", line) for line in found] == [
        ["--nodes=1", "--ntasks-per-node=1", "--gres=gpu:1", "--array=0"],
        ["--nodes=1", "--ntasks-per-node=8", "--gres=gpu:8", "--array=1"],
        ["--nodes=2", "--ntasks-per-node=8", "--gres=gpu:8", "--array=2"],
    ]
    with pytest.raises(Fault, match="GPUS_PER_NODE") as caught:
        lines(study, "slurm")
    assert caught.value.code == USAGE


def test_when_all_is_done_there_is_nothing_to_submit(study_of):
    assert lines(study_of("batch=64"), "slurm") == ["no cell is left to run"]


@pytest.mark.parametrize(("numbers", "text"), [([0, 1, 2, 5], "0-2,5"), ([3], "3"), ([], "")])
def test_numbers_are_written_as_sbatch_takes_them(numbers, text):
    assert jobs.ranges(numbers) == text


def test_a_value_of_some_devices_comes_before_that_of_all():
    parsed = jobs.parse(["HOSTS=1", "16:HOSTS=4", "IMAGE=a/b:c"])
    assert parsed == {0: {"HOSTS": "1", "IMAGE": "a/b:c"}, 16: {"HOSTS": "4"}}
    with pytest.raises(Fault, match="write NAME=VALUE"):
        jobs.parse(["hosts"])


@pytest.mark.skipif(not RENDER.is_file(), reason="launch/render.sh is not in this checkout")
def test_every_cell_is_a_jobset_that_runs_it_where_the_jobs_see_the_study(study_of):
    yaml = pytest.importorskip("yaml", reason="pip install pyyaml")
    study = study_of("batch=64;devices=4,16", skip=["batch=64-devices=4", "batch=64-devices=16"])
    values = [*GKE, "4:HOSTS=1", "4:TOPOLOGY=2x2", "16:HOSTS=4", "16:TOPOLOGY=4x4"]
    told = lines(study, "gke", values, at="/shared/x")
    assert told[0] == f"first copy {study.path / 'study.json'} to /shared/x, where the jobs look " \
        "for it"  # fmt: skip
    assert told[-1] == f"kubectl create -f {study.path / 'jobs' / '1.yaml'}"
    text = (study.path / "jobs" / "1.yaml").read_text()
    found = yaml.safe_load(text)
    assert found["metadata"]["name"] == "study-1"
    assert "4x4" in text
    assert "2x2" not in text
    assert "exec python -m ssl_jax.study --workdir=/shared/x --cell=1" in text


@pytest.mark.skipif(not RENDER.is_file(), reason="launch/render.sh is not in this checkout")
def test_a_value_that_is_missing_is_named(study_of):
    study = study_of("batch=64", skip=["batch=64"])
    with pytest.raises(Fault, match="needs HOSTS TOPOLOGY"):
        lines(study, "gke", GKE)
    with pytest.raises(Fault, match="needs ACCELERATORS BUCKET EXTRA NODES SPOT"):
        lines(study, "skypilot")
