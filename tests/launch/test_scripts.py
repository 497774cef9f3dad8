"""Checks for all launch scripts: shellcheck, --help, --print, missing arguments."""

import shlex
import shutil
import subprocess

import pytest
import standins

SCRIPTS = ("local.sh", "slurm.sbatch", "tpu_vm.sh", "render.sh")
AWKWARD = ("python", "-c", "print('a  b')", 'c"d', "$HOME;e", "*", "", "f\ng")
TPU = ("--project=p", "--zone=z", "--name=n", "--type=v5litepod-16", "--version=v")
SKYPILOT = ("skypilot.yaml", "NAME=n", "NODES=2", "ACCELERATORS=H100:8", "SPOT=true")
SKYPILOT += ("EXTRA=cuda13", "BUCKET=s3://b")


def test_every_script_is_tested():
    scripts = {path.name for path in standins.LAUNCH.iterdir() if path.suffix != ".yaml"}
    assert scripts == set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_reports_nothing(script):
    if not shutil.which("shellcheck"):
        pytest.skip("install shellcheck")
    done = subprocess.run(["shellcheck", standins.LAUNCH / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_prints_only_the_first_comment(script):
    done = standins.launch(script, "--help")
    assert done.returncode == 0
    assert f"launch/{script}" in done.stdout
    assert "--print" in done.stdout
    assert "set -euo" not in done.stdout
    assert "#" not in done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("local.sh", ["--", "true"], "-n PROCESSES"),
        ("local.sh", ["-n", "two", "--", "true"], "'two'"),
        ("local.sh", ["-n"], "-n must be"),
        ("local.sh", ["-n", "2"], "after --"),
        ("local.sh", ["-n", "2", "true"], "'true'"),
        ("slurm.sbatch", [], "COMMAND"),
        *(
            ("tpu_vm.sh", [*TPU[:i], *TPU[i + 1 :], "--", "x"], TPU[i].split("=")[0])
            for i in range(5)
        ),
        ("tpu_vm.sh", [*TPU], "after --"),
        ("tpu_vm.sh", [*TPU, "--slices=0", "--", "x"], "--slices"),
        ("tpu_vm.sh", [*TPU, "--bucket=b", "--", "x"], "'--bucket=b'"),
        ("render.sh", [], "FILE"),
        ("render.sh", ["nothing.yaml", "--", "x"], "'nothing.yaml'"),
        (
            "render.sh",
            ["gke_jobset.yaml", "NAME=n", "--", "x"],
            "CLAIM HOSTS IMAGE SLICES TOPOLOGY:",
        ),
        ("render.sh", [*SKYPILOT, "ZONE=z", "--", "x"], "'ZONE'"),
        ("render.sh", [*SKYPILOT, "COMMAND=z", "--", "x"], "'COMMAND'"),
        ("render.sh", ["skypilot.yaml", "NAME=a\nb: c", "--", "x"], "NAME=VALUE"),
        ("render.sh", [*SKYPILOT], "after --"),
    ],
)
def test_usage_errors_name_the_problem_and_run_nothing(script, arguments, message, tmp_path):
    programs = standins.Standins(tmp_path)
    for name in ("gcloud", "sky", "kubectl", "srun"):
        programs.put(name)
    done = standins.launch(script, *arguments, environment=programs.environment)
    assert done.returncode == 64
    assert message in done.stderr
    assert not programs.calls()


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("local.sh", ["-n", "1", "-d", "2", "--print", "--"]),
        ("slurm.sbatch", ["--print"]),
        ("render.sh", ["--print", *SKYPILOT, "--"]),
    ],
)
def test_print_shows_the_exact_command_and_runs_nothing(script, options, tmp_path):
    programs = standins.Standins(tmp_path)
    for name in ("sky", "kubectl", "srun", "scontrol", "python"):
        programs.put(name)
    done = standins.launch(script, *options, *AWKWARD, environment=programs.environment)
    assert done.returncode == 0, done.stderr
    assert not programs.calls()
    [line] = [line for line in done.stdout.splitlines() if " python -c" in line]
    assert bash_words(line)[-len(AWKWARD) :] == list(AWKWARD)


def bash_words(line):
    """Returns the words that bash reads from a line."""
    printed = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True
    )
    return printed.stdout.split("\0")[:-1]


def test_print_of_local_shows_environment_and_command():
    done = standins.launch(
        *("local.sh", "-n", "2", "-d", "4", "--print", "--", "python", "-m", "x", "--a=b c")
    )
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    port = lines[0][1].removeprefix("SSL_JAX_COORDINATOR=127.0.0.1:")
    assert 1024 <= int(port) < 65536
    assert lines == [
        [
            *("env", f"SSL_JAX_COORDINATOR=127.0.0.1:{port}", "SSL_JAX_PROCESSES=2"),
            *(f"SSL_JAX_PROCESS={process}", "JAX_PLATFORMS=cpu", "JAX_NUM_CPU_DEVICES=4"),
            *("python", "-m", "x", "--a=b c"),
        ]
        for process in (0, 1)
    ]


def test_print_of_slurm_shows_srun_and_requeue(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "9", "SLURM_CPUS_PER_TASK": "6"}
    done = standins.launch("slurm.sbatch", "--print", "python", "x y", environment=environment)
    assert done.stdout.splitlines() == [
        "srun --label --kill-on-bad-exit=0 --wait=120 --cpus-per-task=6 python x\\ y",
        "on exit code 75: scontrol requeue 9",
    ]
    array = environment | {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    done = standins.launch("slurm.sbatch", "--print", "x", environment=array)
    assert done.stdout.splitlines()[1] == "on exit code 75: scontrol requeue 7_3"
