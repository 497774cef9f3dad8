"""A local Slurm cluster of two nodes with all its files in one folder, for tests."""

import contextlib
import os
import pathlib
import socket
import subprocess
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol")

# Nodes are IP addresses, because JAX takes the coordinator's host from SLURM_STEP_NODELIST and must
# resolve it. Credentials expire fast, because a requeued job waits until the last one has expired.
CONFIG = """
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
JobRequeue=1
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
KillWait=15
MinJobAge=300
NodeName=127.0.0.[1-2] NodeHostname=localhost Port={ports[1]},{ports[2]} CPUs=4
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """Submits and watches jobs of the cluster with the file `config` (SLURM_CONF)."""

    def __init__(self, config: pathlib.Path):
        self.environment = os.environ | {"SLURM_CONF": str(config)}

    def run(self, *command: str, **options) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, **options
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, *arguments: str, **options) -> str:
        return self.run("sbatch", "--parsable", *arguments, **options)

    def job(self, number: str) -> dict[str, str]:
        """Returns the fields of `scontrol show job`."""
        text = self.run("scontrol", "--oneliner", "show", "job", number).splitlines()[0]
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def wait(self, number: str, *states: str, seconds: float = 60) -> dict[str, str]:
        """Waits until the job's state is one of `states`; returns its fields."""
        return until(
            lambda: (job := self.job(number))["JobState"] in states and job,
            f"job {number} to be {states}",
            seconds,
        )


def until(ready, what: str, seconds: float = 60):
    """Waits until `ready()` returns a true value, and returns it."""
    deadline = time.monotonic() + seconds
    while not (answer := ready()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)
    return answer


@contextlib.contextmanager
def running(folder: pathlib.Path):
    """A context with a running cluster whose files are all in `folder`."""
    (folder / "state").mkdir()
    config, key = folder / "slurm.conf", folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    config.write_text(CONFIG.format(folder=folder, ports=free_ports(3)))
    cluster = Cluster(config)
    with contextlib.ExitStack() as daemons:
        start(daemons, cluster, folder, *munged_command(folder, key))
        start(daemons, cluster, folder, "slurmctld", "-D", "-f", str(config))
        for node in ("127.0.0.1", "127.0.0.2"):
            start(daemons, cluster, folder, "slurmd", "-D", "-f", str(config), "-N", node)
        until(lambda: cluster.run("sinfo", "-h", "-t", "idle", "-o", "%D") == "2", "two idle nodes")
        yield cluster
        subprocess.run(["scancel", "--user=root"], env=cluster.environment, check=False)


def munged_command(folder, key):
    files = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{name}={folder}/munge.{suffix}" for name, suffix in files.items()]
    # --force: munge refuses the permissions of a temporary folder otherwise.
    return ["munged", "--foreground", "--force", f"--key-file={key}", *options]


def start(daemons, cluster, folder, *command):
    with open(folder / "daemons.log", "ab") as log:
        process = subprocess.Popen(command, env=cluster.environment, stdout=log, stderr=log)
    daemons.callback(stop, process)


def stop(process):
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
