"""launch/tpu_vm.sh with a stand-in for gcloud. Hosts are folders, and commands run in them.

A scenario is the list of states that successive calls of `describe` return; "" means that the
queued resource does not exist.
"""

import os
import pathlib
import signal
import subprocess
import time

import pytest
import standins

OPTIONS = ("--project=p", "--zone=z", "--name=n", "--type=v5litepod-16", "--version=v")
HOSTS = ("0", "1")
BOOT = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text()

# `ssh` runs its command in the folder of each host, like a login shell. The host's python3 installs
# nothing and only records its arguments. With a file `lost`, `ssh` fails and removes the hosts.
GCLOUD = """
import os, pathlib, shutil, subprocess
root = pathlib.Path({root!r})
verb, rest = call[4], call[5:]
if verb == "describe":
    states = (root / "states").read_text().splitlines()
    (root / "states").write_text("\\n".join(states[1:] or states))
    print(states[0])
    sys.exit(0 if states[0] else 1)
if verb == "create":
    if (root / "refuse").exists():
        sys.exit(3)
    for host in {hosts!r}:
        (root / host / "bin").mkdir(parents=True)
        python = root / host / "bin" / "python3"
        python.write_text("#!/bin/sh\\necho \\"$@\\" >>$HOME/installed\\nmkdir -p .venv/bin\\n")
        python.chmod(0o755)
if verb == "delete":
    for host in {hosts!r}:
        shutil.rmtree(root / host, ignore_errors=True)
if verb == "scp":
    for host in {hosts!r}:
        shutil.copy(rest[0], root / host / rest[1].split(":")[1])
if verb == "ssh":
    [command] = [word.removeprefix("--command=") for word in rest if word.startswith("--command=")]
    running = []
    for host in {hosts!r}:
        home = root / host
        environment = os.environ | {{"HOME": str(home), "HOSTNAME": "host-" + host}}
        environment["PATH"] = f"{{home}}/bin:" + os.environ["PATH"]
        environment["HOST"] = host
        running.append(
            subprocess.Popen(
                ["bash", "-c", command], cwd=home, env=environment, start_new_session=True
            )
        )
    codes = [each.wait() for each in running]
    if "run.log" in command and (root / "lost").exists():
        (root / "lost").unlink()
        for host in {hosts!r}:
            shutil.rmtree(root / host)
        sys.exit(255)
    sys.exit(max(codes))
"""


class Cloud:
    """A stand-in cloud in a folder, which reports the given states one after another."""

    def __init__(self, folder, *states):
        self.folder = folder
        self.programs = standins.Standins(folder)
        self.programs.put("gcloud", GCLOUD.format(root=str(folder), hosts=HOSTS))
        self.programs.put("sleep", "import time; time.sleep(0.02)")
        (folder / "states").write_text("\n".join(states))

    def launch(self, command, *options):
        """Runs a bash program on every host; `$shared` is a folder that outlives the hosts."""
        program = f"shared={self.folder}\n{command}"
        return standins.launch(
            *("tpu_vm.sh", *OPTIONS, *options, "--", "bash", "-c", program, "x", "a  b", "$c'd"),
            environment=self.programs.environment,
        )

    def verbs(self):
        """Returns the kinds of gcloud calls, in order."""
        names = []
        for call in self.programs.calls():
            if call[0] != "gcloud":
                continue
            assert call[1:4] == ["compute", "tpus", "queued-resources"]
            assert call[-3:] == ["--project=p", "--zone=z", "--quiet"]
            text = " ".join(call)
            kinds = {
                "uv venv": "install",
                "boot_id": "installed?",
                "run.log": "run",
                "cat ssl": "codes",
            }
            names += [n for part, n in kinds.items() if part in text][:1] or [call[4]]
        return names


def test_a_run_from_request_to_deletion(tmp_path):
    cloud = Cloud(tmp_path, "", "WAITING_FOR_RESOURCES", "SOME_NEW_NAME", "ACTIVE")
    done = cloud.launch('printf "<%s>" "$@"; pwd; ls launch')
    assert done.returncode == 0, done.stderr
    wait = ["describe", "create", "describe", "describe", "describe"]
    work = ["installed?", "scp", "install", "run", "codes", "delete"]
    assert cloud.verbs() == wait + work
    for host in HOSTS:
        assert f"[host-{host}] <a  b><$c'd>{tmp_path}/{host}/ssl_jax\n" in done.stdout
        assert f"[host-{host}] tpu_vm.sh\n" in done.stdout
        assert not (tmp_path / host).exists()


def test_a_second_installation_does_not_disturb_a_running_command(tmp_path):
    """The script installs again if the check over ssh fails for another reason."""
    printed = Cloud(tmp_path, "ACTIVE").launch("true", "--print").stdout
    program = f"gcloud() {{ printf '%s\\0' \"$@\"; }}; {printed[printed.index('gcloud') :]}"
    words = subprocess.run(["bash", "-c", program], capture_output=True, text=True).stdout
    [install] = [word for word in words.split("\0") if "uv venv" in word]
    folder = tmp_path / "host" / "ssl_jax"
    folder.mkdir(parents=True)
    (folder / "run.pid").touch()
    (folder / ".installed").write_text(BOOT)
    command = ["bash", "-c", install.removeprefix("--command=")]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "run.pid").exists()


def test_a_rebooted_host_is_set_up_again(tmp_path):
    """Its disk stays, but its mounts are lost."""
    cloud = Cloud(tmp_path, "", "ACTIVE")
    forget = (
        "mark=$shared/again-$HOST; [ -e $mark ] && exit; touch $mark; echo old >.installed; exit 75"
    )
    done = cloud.launch(forget, f"--setup=echo mounted >>{tmp_path}/$HOST-mounted")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "0-mounted").read_text() == "mounted\n" * 2


def test_print_shows_the_commands_that_run(tmp_path):
    cloud = Cloud(tmp_path, "", "ACTIVE")
    assert cloud.launch("true").returncode == 0
    ran = [call for call in cloud.programs.calls() if call[0] == "gcloud"][1:]
    ran = [
        call for call in ran if not call[6].startswith("--command=[ ")
    ]  # checks of the installation
    cloud.programs.file.unlink()
    printed = cloud.launch("true", "--print")
    assert not cloud.programs.calls()
    cloud.programs.put("gcloud")
    for line in printed.stdout.splitlines():
        if line.startswith("gcloud"):
            subprocess.run(["bash", "-c", line], env=cloud.programs.environment, check=True)
    shown = cloud.programs.calls()
    [scp] = [call for call in ran if call[4] == "scp"]
    scp[5] = "ssl_jax.tar.gz"  # its real path is in a temporary folder
    assert shown == ran


def test_slices_spot_and_setup(tmp_path):
    cloud = Cloud(tmp_path, "", "ACTIVE")
    setup = "echo mounted >$HOME/mounted"
    done = cloud.launch("cat $HOME/mounted", "--spot", "--slices=3", f"--setup={setup}")
    assert sorted(done.stdout.splitlines()) == ["[host-0] mounted", "[host-1] mounted"]
    [create] = [call for call in cloud.programs.calls() if "create" in call]
    assert create[5:-3] == [
        *("n", "--accelerator-type=v5litepod-16", "--runtime-version=v"),
        *("--node-count=3", "--node-prefix=n", "--spot"),
    ]


def test_a_preempted_run_continues_on_new_slices(tmp_path):
    states = ("", "ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDED", "", "PROVISIONING", "ACTIVE")
    cloud = Cloud(tmp_path, *states)
    (tmp_path / "lost").touch()
    done = cloud.launch("echo $PWD >>$shared/began-$HOST; exit 0")
    assert done.returncode == 0, done.stderr
    assert "preempted" in done.stderr
    verbs = cloud.verbs()
    assert verbs.count("run") == 2
    after = verbs[verbs.index("delete") :]
    begin = ["delete", "describe", "create", "describe", "describe"]
    assert after == [*begin, "installed?", "scp", "install", "run", "codes", "delete"]
    archives = [call[5] for call in cloud.programs.calls() if call[4:5] == ["scp"]]
    assert len(set(archives)) == 1
    assert (tmp_path / "began-0").read_text().splitlines() == [f"{tmp_path}/0/ssl_jax"] * 2


def test_exit_code_75_reruns_the_command_without_installing_again(tmp_path):
    cloud = Cloud(tmp_path, "", "ACTIVE")
    done = cloud.launch("echo again >>$HOME/runs; [ $(wc -l <$HOME/runs) = 3 ] || exit 75")
    assert done.returncode == 0, done.stderr
    assert cloud.verbs().count("run") == 3
    assert cloud.verbs().count("install") == cloud.verbs().count("create") == 1


@pytest.mark.parametrize(
    ("command", "code", "runs"),
    [
        ("exit 78", 78, 1),
        ("exit 134", 134, 4),
        # One host makes a mistake, and the others were stopped.
        ("[ $HOST = 0 ] && exit 75; exit 65", 65, 1),
    ],
)
def test_other_exit_codes_end_the_run(tmp_path, command, code, runs):
    cloud = Cloud(tmp_path, "", "ACTIVE")
    assert cloud.launch(command).returncode == code
    assert cloud.verbs().count("run") == runs
    assert cloud.verbs()[-1] == "delete"


def test_a_second_launch_attaches_to_a_running_command(tmp_path):
    cloud = Cloud(tmp_path, "", "ACTIVE")
    wait = "until [ -e $shared/end ]; do read -rt 0.1 <>$shared/fifo; done; exit 0"
    program = f"echo began | tee -a $shared/began; {wait}"
    os.mkfifo(tmp_path / "fifo")
    script = standins.LAUNCH / "tpu_vm.sh"
    command = [script, *OPTIONS, "--keep", "--", "bash", "-c", f"shared={tmp_path}\n{program}"]
    with subprocess.Popen(command, env=cloud.programs.environment, start_new_session=True) as first:
        wait_for(lambda: (tmp_path / "began").exists() and len(read(tmp_path / "began")) == 2)
        os.killpg(first.pid, signal.SIGKILL)  # this machine loses its connection
    (tmp_path / "states").write_text("ACTIVE")
    with subprocess.Popen(
        command, env=cloud.programs.environment, stdout=subprocess.PIPE, text=True
    ) as second:
        shown = [second.stdout.readline(), second.stdout.readline()]
        (tmp_path / "end").touch()
        assert second.wait(60) == 0
    assert sorted(shown) == ["[host-0] began\n", "[host-1] began\n"]
    assert len(read(tmp_path / "began")) == 2  # once per host
    assert "delete" not in cloud.verbs()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_waiting_deletes_the_request(tmp_path, number):
    cloud = Cloud(tmp_path, "", "WAITING_FOR_RESOURCES")
    command = [standins.LAUNCH / "tpu_vm.sh", *OPTIONS, "--", "true"]
    with subprocess.Popen(command, env=cloud.programs.environment) as running:
        wait_for(lambda: cloud.verbs().count("describe") > 3)
        running.send_signal(number)
        assert running.wait(30) == 128 + number
    assert cloud.verbs()[-1] == "delete"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_command_runs_deletes_the_slices(tmp_path, number):
    """Bash would handle a signal only after its foreground command, here after 40 seconds."""
    cloud = Cloud(tmp_path, "", "ACTIVE")
    program = f"touch {tmp_path}/began; /bin/sleep 40"
    command = [standins.LAUNCH / "tpu_vm.sh", *OPTIONS, "--", "bash", "-c", program]
    with subprocess.Popen(command, env=cloud.programs.environment) as running:
        wait_for((tmp_path / "began").exists)
        running.send_signal(number)
        assert running.wait(10) == 128 + number
    assert cloud.verbs()[-2:] == ["run", "delete"]


def test_a_failed_request_is_deleted_and_a_refused_one_is_not(tmp_path):
    cloud = Cloud(tmp_path, "", "FAILED")
    done = cloud.launch("true")
    assert done.returncode == 1
    assert "the request failed" in done.stderr
    assert cloud.verbs()[-1] == "delete"
    (tmp_path / "calls.jsonl").unlink()
    (tmp_path / "states").write_text("\n")
    (tmp_path / "refuse").touch()
    assert cloud.launch("true").returncode == 3
    assert cloud.verbs() == ["describe", "create"]


def read(file):
    return file.read_text().splitlines()


def wait_for(ready, seconds=30):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)
