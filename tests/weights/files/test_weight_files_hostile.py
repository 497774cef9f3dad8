"""The corpus: every file is refused for its reason, within bounds, and nothing is run."""

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
# Reads all paths in a process of its own: resident memory first, since tracing takes memory.
CHILD = """
import json, sys, time, tracemalloc
from ssl_jax.errors import Fault
from ssl_jax.weights import files

good, paths = json.load(sys.stdin)
for path in good:
    files.read(path)  # whatever is imported late is imported now

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
    # Linux counts in ru_maxrss what the parent held before this program began.
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
    """[(path, what the refusal must say)]."""
    return hostile.write(tmp_path_factory.mktemp("hostile"))


def test_every_file_is_refused_for_its_reason(corpus):
    assert len(corpus) >= 250
    wrong = []
    for path, said in corpus:
        with pytest.raises(Fault) as caught:
            files.read(path)
        message = str(caught.value)
        assert caught.value.code == (IO_ERROR if path.name == "loop.pth" else BAD_DATA), path
        assert message.startswith(str(path)), "the message names the file"
        assert message.isprintable(), "a file's bytes do not reach the terminal as they are"
        if not re.search(said, message.removeprefix(str(path))):
            wrong.append((path.name, said, message[-300:]))
    assert not wrong


def test_time_memory_and_what_is_done(corpus, tmp_path):
    good = []
    for kind, make in handmade.GOOD.items():
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
    found = json.loads(child.stdout)
    assert not found["events"]
    assert sorted(tmp_path.iterdir()) == before, "nothing was run that touches files"
    slowest = max(paths, key=found["seconds"].get)
    largest = max(paths, key=found["traced"].get)
    print(f"slowest {slowest}: {found['seconds'][slowest]:.2f} s")
    print(f"largest {largest}: {found['traced'][largest]:.1f} MiB; all {found['growth']:.1f} MiB")
    assert found["seconds"][slowest] < SECONDS, slowest
    assert found["traced"][largest] < MEGABYTES, largest
    assert 0 < found["growth"] < MEGABYTES


def test_the_hook_sees_what_the_corpus_would_do(corpus):
    """Python's own unpickler runs what our readers refuse: the corpus is no straw man."""
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
