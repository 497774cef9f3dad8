"""launch/slurm.sbatch on a real Slurm cluster of two local nodes; see slurm_cluster.py."""

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

# A task that runs until SIGTERM and then writes a file that stands for a save. After a requeue, it
# ends by itself.
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


def wait_for_start(folder, job, tasks):
    """Waits until all tasks of the job run; returns the job's output file."""
    file = folder / f"slurm-{job}.out"
    until(
        lambda: file.exists() and file.read_text().count("restarts 0") == tasks, f"{job} to start"
    )
    return file


def test_a_stopped_job_requeues_itself_and_a_cancelled_one_does_not(cluster, tmp_path):
    stopped = cluster.submit(*PAIR, *COMMAND, cwd=tmp_path)
    cancelled = cluster.submit(*PAIR, *COMMAND, cwd=tmp_path)
    array = cluster.submit("--array=0-1", *COMMAND, cwd=tmp_path)
    output = wait_for_start(tmp_path, stopped, 2)
    wait_for_start(tmp_path, cancelled, 2)
    wait_for_start(tmp_path, f"{array}_0", 1)
    wait_for_start(tmp_path, f"{array}_1", 1)
    cluster.run("scancel", "--signal=TERM", stopped)
    cluster.run("scancel", cancelled)
    # The last task of an array has the array's number as its job number.
    assert cluster.job(f"{array}_1")["JobId"] == array
    cluster.run("scancel", "--signal=TERM", f"{array}_1")

    job = cluster.wait(stopped, "COMPLETED")
    assert (job["Restarts"], job["ExitCode"]) == ("1", "0:0")
    text = output.read_text()
    for task in (0, 1):
        for restarts in (0, 1):
            assert f"{task}: restarts {restarts} ['a  b', \"$c'd\"] None" in text
        assert (tmp_path / f"saved-{stopped}-{task}").exists()
        # Slurm also sends SIGTERM to every task on a plain scancel, so the cancelled job saved.
        assert (tmp_path / f"saved-{cancelled}-{task}").exists()
    assert "stopped early with its state saved" in text
    job = cluster.wait(cancelled, "CANCELLED")
    assert job["Restarts"] == "0"
    assert cluster.wait(f"{array}_1", "COMPLETED")["Restarts"] == "1"
    assert cluster.job(f"{array}_0")["JobState"] == "RUNNING"
    assert "restarts 1 ['a  b', \"$c'd\"] 1" in (tmp_path / f"slurm-{array}_1.out").read_text()
    cluster.run("scancel", array)


def test_a_job_saves_and_requeues_itself_before_the_time_limit(cluster, tmp_path):
    # Time limits are whole minutes, and Slurm may send the signal up to one minute early.
    job = cluster.submit("--time=1", "--signal=SIGTERM@30", *PAIR, *COMMAND, cwd=tmp_path)
    began = time.monotonic()
    finished = cluster.wait(job, "COMPLETED", seconds=120)
    assert time.monotonic() - began < 100
    assert (finished["Restarts"], finished["ExitCode"]) == ("1", "0:0")
    assert (tmp_path / f"saved-{job}-1").exists()


@pytest.mark.parametrize("codes", [(78, 75), (75, 80), (0, 65)])
def test_other_exit_codes_end_the_job_with_that_code(cluster, tmp_path, codes):
    task = f"import os; os._exit({codes}[int(os.environ['SLURM_PROCID'])])"
    job = cluster.submit(*PAIR, SCRIPT, sys.executable, "-c", task, cwd=tmp_path)
    failed = cluster.wait(job, "FAILED")
    assert (failed["ExitCode"], failed["Restarts"]) == (f"{max(codes)}:0", "0")


STEPS = 60
TRAIN = (
    *(sys.executable, "-m", "ssl_jax.train", "--config=configs/simclr.py:digits"),
    *("--config.model.width=0.125", "--config.method.hidden_dim=16"),
    *("--config.method.output_dim=8", "--config.train.batch_size=64", "--config.data.eval_split="),
    *(f"--config.train.steps={STEPS}", "--config.train.log_every=1", "--config.eval.draws=2"),
    *("--config.train.checkpoint_every=20", "--config.eval.baselines=False"),
)


def test_training_on_two_nodes_resumes_bit_for_bit_after_sigterm(cluster, tmp_path):
    variables = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": ""}
    stopped, unbroken = tmp_path / "stopped", tmp_path / "unbroken"
    exported = ",".join(["ALL", *(f"{name}={value}" for name, value in variables.items())])
    options = (*PAIR, f"--export={exported}", f"--output={tmp_path}/job.out")
    job = cluster.submit(*options, SCRIPT, *TRAIN, f"--workdir={stopped}", cwd=standins.ROOT)
    log, output = stopped / "metrics.jsonl", tmp_path / "job.out"

    def ten_steps_done():
        assert cluster.job(job)["JobState"] in ("PENDING", "RUNNING"), output.read_text()
        return log.exists() and len(log.read_text().splitlines()) > 10

    until(ten_steps_done, "ten steps", seconds=240)
    cluster.run("scancel", "--signal=TERM", job)
    finished = cluster.wait(job, "COMPLETED", "FAILED", seconds=300)
    text = output.read_text()
    assert (finished["JobState"], finished["Restarts"]) == ("COMPLETED", "1"), text
    for task in (0, 1):
        assert f"task {task}: Exited with exit code 75" in text

    command = [standins.LAUNCH / "local.sh", "-n", "2", "-d", "1", "--", *TRAIN]
    environment = os.environ | variables
    done = subprocess.run(
        [*command, f"--workdir={unbroken}"],
        env=environment,
        cwd=standins.ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert steps(log) == steps(unbroken / "metrics.jsonl")
    one, two = arrays(stopped), arrays(unbroken)
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], err_msg=name)


def steps(log):
    """Returns the logged values of every step, without the speed of this machine."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return [{name: row[name] for name in ("batch_hash", "loss", "grad_norm")} for row in rows]


def arrays(path):
    """Reads every array of the last checkpoint with Orbax alone; returns {name: array}."""
    import jax
    import orbax.checkpoint as ocp

    checkpoint = path / "checkpoints" / str(STEPS)
    with ocp.PyTreeCheckpointer() as reader:
        names = reader.metadata(checkpoint).item_metadata.tree
        # As NumPy arrays, because the devices of the two processes do not exist in this process.
        numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), names)
        tree = reader.restore(checkpoint, restore_args=numpy)
    return {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(tree)}
