"""The direction of imports, and what importing costs."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "ssl_jax"
# Shipped with exports and loaded by path. It needs torch, unlike the rest of the package.
FOREIGN = pathlib.Path("export", "pytorch.py")
TORCH_RUNTIME = pathlib.Path("export", "torch_runtime.py")
TENSORFLOW = {
    pathlib.Path("export", "formats", "savedmodel.py"),
    pathlib.Path("rundir", "metrics.py"),
    pathlib.Path("weights", "files", "tensorflow.py"),
}
# The layers of the package, lowest first. A module imports only from lower layers and from its own
# package.
LAYERS = (
    ("errors", "field"),
    ("plugins",),
    ("losses", "models", "optim", "inputs", "jobs"),
    ("weights", "parallel", "data", "config", "configs"),
    ("methods", "rundir", "cli"),
    ("report", "components"),
    ("pretrained", "training"),
    ("build",),
    ("evals", "export", "plan", "study", "testing"),
    ("train", "evaluate", "finetune", "preview", "supervise"),
)
LAYER = {name: number for number, layer in enumerate(LAYERS) for name in layer}
VERBS = set(LAYERS[-1])


def modules():
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imports(path, *, lazy=True):
    """Absolute names that a module imports; `lazy` includes those inside functions."""
    tree = ast.parse((PACKAGE / path).read_text())
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide from these tests"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _dotted(path):
    """The module's dotted name: "losses.tiles", "losses" for losses/__init__.py."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _targets(path):
    """Dotted names, without "ssl_jax.", of the package's own modules that a module imports."""
    known = {_dotted(path) for path in modules()}
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "ssl_jax" and len(parts) > 1:
            # `from ssl_jax.losses import nt_xent` names an attribute of a module.
            yield next(
                dotted
                for n in range(len(parts), 1, -1)
                if (dotted := ".".join(parts[1:n])) in known
            )


@pytest.mark.parametrize("path", modules(), ids=str)
def test_module_imports_only_from_lower_layers(path):
    own = path.parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):  # these import verbs and backbones
        own, layer = "", len(LAYERS)
    else:
        # `python -m ssl_jax.plan` is a verb in a package: it may not import other verbs.
        layer = LAYER[own]
    for target in _targets(path):
        package = target.split(".")[0]
        assert package == own or LAYER[package] < layer, f"{_dotted(path)} imports {target}"


def test_modules_have_no_import_cycles():
    graph = {_dotted(path): set(_targets(path)) for path in modules()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("path", modules(), ids=str)
def test_tensorflow_is_imported_lazily_and_only_by_inputs_data_and_formats(path):
    heavy = {"tensorflow", "tensorflow_datasets", "clu"}
    assert not heavy & {name.split(".")[0] for name in imports(path, lazy=False)}
    lazy = path.parts[0] in ("data", "inputs") or path in TENSORFLOW
    if not lazy:
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


def test_only_the_definition_shipped_with_exports_needs_torch():
    def users(lazy):
        return [p for p in modules() if "torch" in _tops(imports(p, lazy=lazy))]

    assert users(lazy=False) == [FOREIGN]
    # torch_runtime imports torch inside functions, to run the definition.
    assert users(lazy=True) == [FOREIGN, TORCH_RUNTIME]


def _tops(names):
    return {name.split(".")[0] for name in names}
