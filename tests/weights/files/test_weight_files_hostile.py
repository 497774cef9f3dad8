"""Tests that every hostile file is refused for its reason, within bounds, and without execution."""

import json
import pathlib
import re
import subprocess
import sys

import handmade
import hostile
import pytest

from ssl_jax.errors import BAD_DATA, IO_ERROR, Fault
from ssl_jax.weights import files

ROOT = pathlib.Path(__file__).resolve().parents[3]
SECONDS = 1.0
MEGABYTES = 64
# Reads all paths in a separate process. It measures resident memory before it traces allocations,
# because tracing itself needs memory.
CHILD = """
import json, sys, time, tracemalloc
from ssl_jax.errors import Fault
from ssl_jax.weights import files

good, paths = json.load(sys.stdin)
for path in good:
    files.read(path)  # imports everything that readers import lazily

events = []
FORBIDDEN = ("pickle.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "ctypes.",
    "subprocess.", "socket.", "compile", "exec", "import", "os.remove", "os.rename", "os.mkdir",
    "shutil.", "tempfile.")

def hook(event, args):
    writes = event == "open" and not (args[1] in ("rb", "r", None) and not args[2] & 3)
    if writes or event.startswith(FORBIDDEN):
        events.append([event, repr(args)[:200]])

sys.addaudithook(hook)

def resident():
    # Not ru_maxrss: on Linux it includes the memory of the parent before exec.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) / 1024

def refuse(path):
    start = time.process_time()
    try:
        files.read(path)
    except Fault:
        return time.process_time() - start
    raise AssertionError(path)

before = resident()
seconds = {path: refuse(path) for path in paths}
growth = resident() - before
traced = {}
for path in paths:
    tracemalloc.start()
    refuse(path)
    traced[path] = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
json.dump({"seconds": seconds, "growth": growth, "traced": traced, "events": events}, sys.stdout)
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Returns [(path, expected reason)]."""
    return hostile.write(tmp_path_factory.mktemp("hostile"))


def test_every_hostile_file_is_refused_for_its_reason(corpus):
    assert len(corpus) >= 250
    wrong = []
    for path, reason in corpus:
        with pytest.raises(Fault) as caught:
            files.read(path)
        message = str(caught.value)
        assert caught.value.code == (IO_ERROR if path.name == "loop.pth" else BAD_DATA), path
        assert message.startswith(str(path)), "the message names the file"
        assert message.isprintable(), "raw bytes of a file must not reach the terminal"
        if not re.search(reason, message.removeprefix(str(path))):
            wrong.append((path.name, reason, message[-300:]))
    assert not wrong


def test_refusal_is_bounded_in_time_and_memory_and_has_no_side_effects(corpus, tmp_path):
    good = []
    for kind, make in handmade.VALID.items():
        good.append(str(tmp_path / kind))
        (tmp_path / kind).write_bytes(make())
    paths = [str(path) for path, _ in corpus]
    text = handmade.npy(descr="<U1", shape=(), data=b"x\0\0\0")
    good.append(str(tmp_path / "text"))
    (tmp_path / "text").write_bytes(handmade.archive(("a.npy", handmade.npy()), ("t.npy", text)))
    before = sorted(tmp_path.iterdir())
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        input=json.dumps([good, paths]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    report = json.loads(child.stdout)
    assert not report["events"]
    assert sorted(tmp_path.iterdir()) == before, "a file of the corpus changed the folder"
    slowest = max(paths, key=report["seconds"].get)
    largest = max(paths, key=report["traced"].get)
    print(f"slowest {slowest}: {report['seconds'][slowest]:.2f} s")
    print(f"largest {largest}: {report['traced'][largest]:.1f} MiB; all {report['growth']:.1f} MiB")
    assert report["seconds"][slowest] < SECONDS, slowest
    assert report["traced"][largest] < MEGABYTES, largest
    assert 0 < report["growth"] < MEGABYTES


def test_hostile_pickle_runs_in_python_unpickler(corpus):
    """Proves that the corpus is dangerous and that the audit hook sees what it does."""
    path = next(path for path, _ in corpus if path.name == "os-system")
    code = (
        "import pickle, sys\nsys.addaudithook(lambda event, args: print(event, args))\n"
        f"pickle.load(open({str(path)!r}, 'rb'))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=path.parent, capture_output=True, text=True, check=True
    )
    assert "pickle.find_class ('os', 'system')" in child.stdout
    assert (path.parent / "PWNED").exists()
    (path.parent / "PWNED").unlink()
