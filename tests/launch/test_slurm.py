"""launch/slurm.sbatch on a real Slurm: two nodes on this machine, see slurm_cluster.py."""

import shutil
import sys
import time

import pytest
import slurm_cluster
import standins
from slurm_cluster import until

pytestmark = pytest.mark.slow
SCRIPT = str(standins.LAUNCH / "slurm.sbatch")
PAIR = ("--nodes=2", "--ntasks-per-node=1")

# A task that works until SIGTERM, which it notes down as saving; queued again, it ends by itself.
TASK = """
import os, pathlib, signal, sys, time
def stop(*_):
    time.sleep(1 + int(os.environ["SLURM_PROCID"]))
    pathlib.Path(f"saved-{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_PROCID']}").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
print("restarts", restarts, sys.argv[1:], os.environ.get("SLURM_ARRAY_TASK_ID"), flush=True)
time.sleep(100 if restarts == "0" else 0)
"""
COMMAND = (SCRIPT, sys.executable, "-c", TASK, "a  b", "$c'd")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    for program in slurm_cluster.PROGRAMS:
        if not shutil.which(program):
            pytest.skip(f"{program} is missing: apt-get install slurm-wlm munge")
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


def begun(folder, job, tasks):
    """Waits for the job's tasks to be at work; its output."""
    file = folder / f"slurm-{job}.out"
    until(lambda: file.exists() and file.read_text().count("restarts 0") == tasks, f"{job} at work")
    return file


def test_a_stopped_job_queues_itself_again_and_a_cancelled_one_does_not(cluster, tmp_path):
    stopped = cluster.submit(*PAIR, *COMMAND, cwd=tmp_path)
    cancelled = cluster.submit(*PAIR, *COMMAND, cwd=tmp_path)
    array = cluster.submit("--array=0-1", *COMMAND, cwd=tmp_path)
    output = begun(tmp_path, stopped, 2)
    begun(tmp_path, cancelled, 2)
    begun(tmp_path, f"{array}_0", 1)
    begun(tmp_path, f"{array}_1", 1)
    cluster.run("scancel", "--signal=TERM", stopped)
    cluster.run("scancel", cancelled)
    # The last task of an array has the array's number as its own.
    assert cluster.job(f"{array}_1")["JobId"] == array
    cluster.run("scancel", "--signal=TERM", f"{array}_1")

    job = cluster.wait(stopped, "COMPLETED")
    assert (job["Restarts"], job["ExitCode"]) == ("1", "0:0")
    text = output.read_text()
    for task in (0, 1):
        for restarts in (0, 1):
            assert f"{task}: restarts {restarts} ['a  b', \"$c'd\"] None" in text
        assert (tmp_path / f"saved-{stopped}-{task}").exists()
        # Slurm gives every task SIGTERM on a plain scancel too, so what it did is saved.
        assert (tmp_path / f"saved-{cancelled}-{task}").exists()
    assert "stopped early with its state saved" in text
    job = cluster.wait(cancelled, "CANCELLED")
    assert job["Restarts"] == "0"
    assert cluster.wait(f"{array}_1", "COMPLETED")["Restarts"] == "1"
    assert cluster.job(f"{array}_0")["JobState"] == "RUNNING"
    assert "restarts 1 ['a  b', \"$c'd\"] 1" in (tmp_path / f"slurm-{array}_1.out").read_text()
    cluster.run("scancel", array)


def test_before_the_time_limit_a_job_saves_and_queues_itself_again(cluster, tmp_path):
    # Limits are whole minutes, and the signal comes up to one minute early.
    job = cluster.submit("--time=1", "--signal=SIGTERM@30", *PAIR, *COMMAND, cwd=tmp_path)
    began = time.monotonic()
    found = cluster.wait(job, "COMPLETED", seconds=120)
    assert time.monotonic() - began < 100
    assert (found["Restarts"], found["ExitCode"]) == ("1", "0:0")
    assert (tmp_path / f"saved-{job}-1").exists()


@pytest.mark.parametrize("codes", [(78, 75), (75, 80), (0, 65)])
def test_other_codes_end_the_job_with_that_code(cluster, tmp_path, codes):
    task = f"import os; os._exit({codes}[int(os.environ['SLURM_PROCID'])])"
    job = cluster.submit(*PAIR, SCRIPT, sys.executable, "-c", task, cwd=tmp_path)
    found = cluster.wait(job, "FAILED")
    assert (found["ExitCode"], found["Restarts"]) == (f"{max(codes)}:0", "0")
