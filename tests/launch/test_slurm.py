"""launch/slurm.sbatch on a real Slurm: two nodes on this machine, see slurm_cluster.py."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
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


STEPS = 60
TRAIN = (
    *(sys.executable, "-m", "ssl_jax.train", "--config=configs/simclr.py:digits"),
    *("--config.model.width=0.125", "--config.method.hidden_dim=16"),
    *("--config.method.output_dim=8", "--config.train.batch_size=64", "--config.data.eval_split="),
    *(f"--config.train.steps={STEPS}", "--config.train.log_every=1", "--config.eval.draws=2"),
    *("--config.train.checkpoint_every=20", "--config.eval.baselines=False"),
)


def test_a_training_over_two_nodes_goes_on_bit_for_bit_after_sigterm(cluster, tmp_path):
    ours = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": ""}
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    exported = ",".join(["ALL", *(f"{name}={value}" for name, value in ours.items())])
    options = (*PAIR, f"--export={exported}", f"--output={tmp_path}/job.out")
    job = cluster.submit(*options, SCRIPT, *TRAIN, f"--workdir={broken}", cwd=standins.ROOT)
    log, output = broken / "metrics.jsonl", tmp_path / "job.out"

    def at_work():
        assert cluster.job(job)["JobState"] in ("PENDING", "RUNNING"), output.read_text()
        return log.exists() and len(log.read_text().splitlines()) > 10

    until(at_work, "ten steps", seconds=240)
    cluster.run("scancel", "--signal=TERM", job)
    found = cluster.wait(job, "COMPLETED", "FAILED", seconds=300)
    text = output.read_text()
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "1"), text
    for task in (0, 1):
        assert f"task {task}: Exited with exit code 75" in text

    command = [standins.LAUNCH / "local.sh", "-n", "2", "-d", "1", "--", *TRAIN]
    environment = os.environ | ours
    done = subprocess.run(
        [*command, f"--workdir={whole}"],
        env=environment,
        cwd=standins.ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert steps(log) == steps(whole / "metrics.jsonl")
    one, two = arrays(broken), arrays(whole)
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], err_msg=name)


def steps(log):
    """What was logged of every step, without rates of this machine."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return [{name: row[name] for name in ("batch_hash", "loss", "grad_norm")} for row in rows]


def arrays(path):
    """Every array of the last checkpoint, by name, read with Orbax alone."""
    import jax
    import orbax.checkpoint as ocp

    checkpoint = path / "checkpoints" / str(STEPS)
    with ocp.PyTreeCheckpointer() as reader:
        names = reader.metadata(checkpoint).item_metadata.tree
        # As NumPy: the devices of the two processes are not this process's.
        numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), names)
        tree = reader.restore(checkpoint, restore_args=numpy)
    return {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(tree)}
