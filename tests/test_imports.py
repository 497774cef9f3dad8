"""The direction of imports, and what importing costs."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "ssl_jax"
# Shipped with exports and loaded by path: it needs torch, which nothing else of ours does.
FOREIGN = pathlib.Path("export", "pytorch.py")
TORCH_RUNTIME = pathlib.Path("export", "torch_runtime.py")
SAVEDMODEL = pathlib.Path("export", "formats", "savedmodel.py")
VERBS = {"train", "evaluate", "finetune", "preview", "supervise"}
# What a package or module may import of its siblings; modules that are not named may import all.
ALLOWED = {
    "errors": set(),
    "goodput": set(),
    "supervisor": {"goodput", "errors"},
    "console": set(),
    "rank": set(),
    "watchdog": {"goodput", "console", "errors"},
    "peers": set(),
    "stop": {"peers", "console", "errors"},
    "losses": {"losses", "errors"},
    "models": {"models", "errors"},
    "augment": {"augment", "errors"},
    "optim": {"parameters", "errors"},
    "parameters": {"errors"},
    "division": set(),
    "parallel": {"parallel", "division", "errors"},
    "fingerprint": {"methods"},
    "data": {"data", "augment", "errors"},
    "methods": {"methods", "losses", "models", "augment", "errors"},
    "spread": set(),
    "health": {"losses", "spread", "errors"},
    "step": {"methods", "parallel", "optim", "health", "fingerprint", "errors"},
    "evals": {"evals", "losses", "spread", "errors"},
    "report": {"report", "errors", "workdir"},
    "study": {
        "study",
        "rank",
        "report",
        "config",
        "data",
        "optim",
        "parallel",
        "errors",
        "workdir",
    },
    "plan": {
        *("plan", "report", "data", "augment", "build", "config", "parallel", "step"),
        *("division", "errors", "workdir"),
    },
    "weights": {"weights", "models", "errors"},
    "export": {"export", "weights", "models", "report", "errors", "backbone", "workdir"},
}


def modules():
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imports(path, *, lazy=True):
    """Absolute names that a module imports; `lazy` includes those inside functions."""
    tree = ast.parse((PACKAGE / path).read_text())
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=str)
def test_imports_point_downwards(path):
    siblings = {n.split(".")[1] for n in imports(path) if n.startswith("ssl_jax.")}
    assert not siblings & VERBS, "nobody imports a verb"
    allowed = ALLOWED.get(path.parts[0].removesuffix(".py"))
    if path.name == "__main__.py":  # a verb as well
        return
    if allowed is not None:
        assert siblings <= allowed


@pytest.mark.parametrize("path", modules(), ids=str)
def test_tensorflow_stays_in_data_and_the_host_executor_and_is_lazy(path):
    heavy = {"tensorflow", "tensorflow_datasets", "clu"}
    assert not heavy & {name.split(".")[0] for name in imports(path, lazy=False)}
    # Augmentations; weights/files/; an export's format.
    lazy = path.name in ("host.py", "tensorflow.py") or path == SAVEDMODEL
    if path.parts[0] not in ("data", "metrics.py") and not lazy:
        assert not heavy & {name.split(".")[0] for name in imports(path)}
    if path.parts[0] == "data":
        assert "jax" not in {name.split(".")[0] for name in imports(path)}


def test_every_module_imports_without_tensorflow_and_verbs_without_jax():
    names = [
        str(p.with_suffix("")).replace("/", ".")
        for p in modules()
        if "__main__" not in str(p) and p != FOREIGN
    ]
    code = f"""
import importlib, sys
for missing in ("tensorflow", "tensorflow_datasets", "clu"):
    sys.modules[missing] = None
for verb in {sorted(VERBS)}:
    importlib.import_module("ssl_jax." + verb)
assert "jax" not in sys.modules, "a verb must answer a mistake before it imports JAX"
for name in {names}:
    importlib.import_module("ssl_jax." + name.removesuffix(".__init__").removesuffix("__init__"))
""".replace('"ssl_jax." + name.removesuffix(".__init__").removesuffix("__init__")',
            '("ssl_jax." + name).removesuffix(".__init__")')  # fmt: skip
    subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=True, timeout=120)


def test_torch_is_needed_by_what_exports_ship_alone():
    def users(lazy):
        return [p for p in modules() if "torch" in _tops(imports(p, lazy=lazy))]

    assert users(lazy=False) == [FOREIGN]
    # torch_runtime runs the definition if torch is installed.
    assert users(lazy=True) == [FOREIGN, TORCH_RUNTIME]


def _tops(names):
    return {name.split(".")[0] for name in names}
