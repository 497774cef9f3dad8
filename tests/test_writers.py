"""Every file of the package is written by `jobs.files`, which follows no link."""

import ast
import pathlib

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "ssl_jax"
WRITER = "jobs/files.py"
# Functions that open a path for writing, whatever object they belong to.
NAMES = {
    *("write_text", "write_bytes", "savefig", "touch", "tofile", "copyfile", "copy2", "copytree"),
    *("savez", "savez_compressed", "savetxt", "imsave", "symlink_to", "hardlink_to"),
}
FRESH = "a folder that export.atomic_folder has just made"
# (module, function): why it may write by itself.
ALLOWED = {
    ("rundir/workdir.py", "write_text"): "cloud storage, which has no links",
    ("report/figures/style.py", "savefig"): "into memory",
    ("evals/files.py", "savez_compressed"): "into the file of atomic_write",
    ("rundir/facts.py", "savez_compressed"): "into the file of atomic_write",
    ("export/words.py", "open"): FRESH,
    ("export/formats/npz.py", "savez"): FRESH,
    ("export/formats/onnx.py", "write_bytes"): FRESH,
    ("export/formats/stablehlo.py", "write_bytes"): FRESH,
    ("export/formats/torch.py", "copyfile"): FRESH,
    ("export/torch_weights.py", "write_bytes"): FRESH,
}


def writes(tree):
    """Yields the name and line of every call that opens a file for writing."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = call.func
        name = getattr(function, "attr", None) or getattr(function, "id", "")
        owner = getattr(getattr(function, "value", None), "id", "")
        if name in NAMES and owner != "workdir":
            yield name, call.lineno
        if name == "open":
            words = [*call.args[:2], *(k.value for k in call.keywords if k.arg == "mode")]
            modes = [w.value for w in words if isinstance(w, ast.Constant)]
            if any(isinstance(m, str) and len(m) < 4 and set(m) & set("wax+") for m in modes):
                yield name, call.lineno


def test_only_the_writer_opens_files_for_writing():
    found, used = [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).as_posix()
        for name, line in writes(ast.parse(path.read_text())):
            if (module, name) in ALLOWED:
                used.add((module, name))
            elif module != WRITER:
                found.append(f"{module}:{line}: {name}")
    assert not found, "write these files by ssl_jax.jobs.files"
    assert used == set(ALLOWED)


def test_the_check_finds_bare_writes():
    code = """
open(path, "w")
path.open(mode="ab")
path.write_text("x")
figure.savefig(path)
open(path)
path.open("rb")
workdir.write_text(path, "x")
"""
    assert [line for _, line in writes(ast.parse(code))] == [2, 3, 4, 5]
