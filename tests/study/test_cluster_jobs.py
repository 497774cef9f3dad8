"""Cluster jobs: which cells they run, by which commands and templates."""

import re

import pytest

from ssl_jax.errors import USAGE, Fault
from ssl_jax.study import cluster_jobs

RENDER = cluster_jobs.ROOT / "launch" / "render.sh"
GKE = ["IMAGE=registry/image:1", "CLAIM=shared", "SLICES=1", "CHIPS=4", "ACCELERATOR=tpu-v6e-slice"]


def written_lines(study, kind, values=(), job_path=""):
    return cluster_jobs.write(study, study.cells, kind, values, job_path).splitlines()


def test_an_array_runs_each_training_that_is_not_done_once(study_of):
    study = study_of("batch=64,128,256;lr_rule=linear,sqrt", skip=[
        f"batch={b}-lr_rule={rule}" for b in (64, 128) for rule in ("linear", "sqrt")
    ])  # fmt: skip
    (line,) = (line for line in written_lines(study, "slurm") if line.startswith("sbatch"))
    assert '--array=0-2 "$@" launch/slurm.sbatch' in line
    assert line.endswith(f"-m ssl_jax.study --workdir={study.path} --cell=slurm")
    script = (study.path / "jobs" / "submit.sh").read_text().splitlines()
    assert script[-2:] == [f"cd {cluster_jobs.ROOT}", line]


def test_each_number_of_devices_has_its_own_array(study_of):
    study = study_of("batch=64;devices=1,8,16", skip=[f"batch=64-devices={n}" for n in (1, 8, 16)])
    lines = written_lines(study, "slurm", ["GPUS_PER_NODE=8"])
    arrays = [line for line in lines if "sbatch " in line]
    assert [re.findall(r"--(?:nodes|ntasks-per-node|gres|array)=\S+", line) for line in arrays] == [
        ["--nodes=1", "--ntasks-per-node=1", "--gres=gpu:1", "--array=0"],
        ["--nodes=1", "--ntasks-per-node=8", "--gres=gpu:8", "--array=1"],
        ["--nodes=2", "--ntasks-per-node=8", "--gres=gpu:8", "--array=2"],
    ]
    with pytest.raises(Fault, match="GPUS_PER_NODE") as caught:
        written_lines(study, "slurm")
    assert caught.value.code == USAGE


def test_no_jobs_are_written_if_all_cells_are_done(study_of):
    assert written_lines(study_of("batch=64"), "slurm") == ["no cell is left to run"]


@pytest.mark.parametrize(("numbers", "text"), [([0, 1, 2, 5], "0-2,5"), ([3], "3"), ([], "")])
def test_array_ranges_have_the_format_of_sbatch(numbers, text):
    assert cluster_jobs.array_ranges(numbers) == text


def test_values_are_parsed_by_number_of_devices():
    parsed = cluster_jobs.parse_values(["HOSTS=1", "16:HOSTS=4", "IMAGE=a/b:c"])
    assert parsed == {0: {"HOSTS": "1", "IMAGE": "a/b:c"}, 16: {"HOSTS": "4"}}
    with pytest.raises(Fault, match="write NAME=VALUE"):
        cluster_jobs.parse_values(["hosts"])


@pytest.mark.skipif(not RENDER.is_file(), reason="launch/render.sh is not in this checkout")
def test_each_cell_is_a_jobset_that_uses_the_jobs_path_of_the_study(study_of):
    yaml = pytest.importorskip("yaml", reason="pip install pyyaml")
    study = study_of("batch=64;devices=4,16", skip=["batch=64-devices=4", "batch=64-devices=16"])
    values = [*GKE, "4:HOSTS=1", "4:TOPOLOGY=2x2", "16:HOSTS=4", "16:TOPOLOGY=4x4"]
    message = written_lines(study, "gke", values, job_path="/shared/x")
    file = study.path / "study.json"
    assert message[0] == f"first copy {file} to /shared/x, where the jobs read it"
    assert message[-1] == f"kubectl create -f {study.path / 'jobs' / '1.yaml'}"
    text = (study.path / "jobs" / "1.yaml").read_text()
    jobset = yaml.safe_load(text)
    assert jobset["metadata"]["name"] == "study-1"
    assert "4x4" in text
    assert "2x2" not in text
    assert "exec python -m ssl_jax.study --workdir=/shared/x --cell=1" in text


@pytest.mark.skipif(not RENDER.is_file(), reason="launch/render.sh is not in this checkout")
def test_the_error_names_missing_template_values(study_of):
    study = study_of("batch=64", skip=["batch=64"])
    with pytest.raises(Fault, match="needs HOSTS TOPOLOGY"):
        written_lines(study, "gke", GKE)
    with pytest.raises(Fault, match="needs ACCELERATORS BUCKET EXTRA NODES SPOT"):
        written_lines(study, "skypilot")
