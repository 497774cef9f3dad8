"""The documentation names commands, configs, flags and files that exist, and its Python runs."""

import functools
import importlib
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from ssl_jax import __main__ as command
from ssl_jax import cli, configs, finetune, inputs
from ssl_jax import config as configuration
from ssl_jax.config import fields

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
SOURCES = [*DOCS, *ROOT.glob("configs/*.py"), *ROOT.glob("benchmarks/*.py")]
SOURCES += [*ROOT.glob("ssl_jax/*.py"), *ROOT.glob("ssl_jax/*/__main__.py")]
HEAD = re.compile(r"(?:python -m (ssl_jax|benchmarks)\.|\b(ssl-jax) )(\w+)")
REST = re.compile(
    r"(?:[^`\n\\]|\\\\?\n)*"
)  # up to the end of the line, of the code, or a lone backslash
PLACEHOLDERS = re.compile(r"VARIANT|FILE|NAME|\.\.\.|^mine\.py|^series_config\.py|^path/to/")


def commands():
    """Yields (package, verb, arguments) of each command, also of a command in another one."""
    for path in SOURCES:
        text = path.read_text()
        for match in HEAD.finditer(text):
            package, verb = match[1] or "ssl_jax", match[3]
            rest = REST.match(text, match.end())[0]
            rest = re.split(r" --(?: |$)|&&| \| ", re.sub(r"\\\\?\n", " ", rest))[0]
            if verb != "VERB":
                yield pytest.param(package, verb, rest, id=f"{path.name}: {package}.{verb}")


def load(value):
    """Returns the config that the value of --config names."""
    path = pathlib.Path(cli.config_path(value).partition(":")[0])
    path = path if path.is_absolute() else ROOT / path
    assert path.parent in (configs.FOLDER, ROOT / "configs"), value
    variant = value.partition(":")[2]
    module = importlib.import_module(f"ssl_jax.configs.{path.stem}")
    return module.get_config(variant) if variant else module.get_config()


@functools.cache
def flags_of(verb):
    """The flags that `ssl-jax VERB --help` lists."""
    words = [sys.executable, "-m", f"ssl_jax.{verb}", "--help"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(re.findall(r"--(?:\[no\])?(\w[\w-]*)", result.stdout))


@pytest.mark.parametrize(("package", "verb", "rest"), list(commands()))
def test_command(package, verb, rest):
    assert importlib.util.find_spec(f"{package}.{verb}"), f"no module {package}.{verb}"
    words = shlex.split(rest.replace("[", "").replace("]", ""), comments=True)
    words = [word[2:] for word in words if word.startswith("--")]
    flags = dict(word.split("=", 1) for word in words if "=" in word)
    config = configuration.default_config()
    where = flags.get("config", "")
    if where and not PLACEHOLDERS.search(where):
        config = load(where)
    if verb == "finetune":
        config = finetune.overridable()
    fields = configuration.flatten(config)
    known = flags_of(verb) if package == "ssl_jax" and verb in command.VERBS else None
    for name in (word.partition("=")[0] for word in words):
        if name.startswith(("config.", "eval.", "data.")):
            if "FIELD" not in name:
                assert name.removeprefix("config.") in fields, name
        elif known is not None and name != "help":
            assert name in known, f"{verb} has no flag --{name}"


def test_commands_are_found():
    found = [param.values for param in commands()]
    assert len(found) > 100
    assert {verb for package, verb, _ in found if package == "ssl_jax"} >= set(command.VERBS)


def test_config_fields_in_text_exist():
    """Flags that stand alone in the guides, such as `--config.optim.lr=0.1`."""
    defaults = map(configuration.default_config, inputs.MODALITIES)
    known = {name for config in defaults for name in configuration.flatten(config)}
    known |= configuration.flatten(finetune.overridable()).keys()
    known |= {field.name for field in fields.FIELDS}  # also of other encoders than ResNets
    for path in DOCS:
        for name in re.findall(r"--config\.([\w.]+\w)", path.read_text()):
            # Each method has its own hyperparameters.
            exempt = name == "FIELD" or name.startswith("method.")
            assert exempt or name in known, f"{path.name}: {name}"


def test_other_views_by_argument():
    simclr = importlib.import_module("ssl_jax.configs.simclr")
    config = simclr.get_config("imagenet,augment=byol")
    assert config.augment.second.to_dict() == {"blur": 0.1, "solarize": 0.2}
    assert config.augment.blur == 1
    assert simclr.get_config("cifar10_cpu,augment=moco_v2").augment.size == 24


def test_python_in_the_readme_runs():
    import jax

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        names = {"z": jax.random.normal(jax.random.key(0), (4, 2, 8))}
        exec(compile(block, "README.md", "exec"), names)
        assert names["loss"] > 0


def python_blocks(page):
    """The Python code of a page in docs/."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, re.S)


@pytest.mark.parametrize("page", ["train", "add_a_method"])
def test_config_files_in_the_guides_are_valid(page):
    (block,) = python_blocks(page)
    names = {}
    exec(compile(block, f"{page}.md", "exec"), names)
    for variant in ("mine",) if page == "train" else ("cifar10", "cifar10_cpu", "imagenet"):
        assert configuration.problems(names["get_config"](variant)) == []


def test_modality_of_the_guide_trains(tmp_path, monkeypatch):
    """The guide's source, modality, encoder and config make a batch and a training step."""
    import jax
    import numpy as np

    from ssl_jax import build, components, parallel, plugins

    module, config_file = python_blocks("add_a_modality")
    (tmp_path / "series.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(plugins.VARIABLE, "")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        label = np.arange(80) % 2
        np.savez(tmp_path / f"{split}.npz", series=rng.normal(size=(80, 100)), label=label)
    names = {}
    exec(compile(config_file.replace("DATA_DIR", str(tmp_path)), "series_config.py", "exec"), names)
    config = names["get_config"]()
    configuration.allow_modules(config)
    assert configuration.problems(config) == []
    config.augment.window = 0
    assert configuration.problems(config) == ["augment.window=0: at least 1"]
    config.augment.window = 32

    mesh = parallel.make_mesh(jax.devices()[:2])
    parts = build.parts(config, mesh)
    assert (parts.source.classes, parts.total_steps) == (("falling", "rising"), 63)
    batches = components.train_batches(config, parts.source, start_step=0, num_steps=1)
    batch = next(iter(batches))
    assert batch["views"].shape == components.batch_spec(config)["views"].shape == (64, 2, 32)
    sharded = {name: jax.device_put(x, parallel.rows(mesh)) for name, x in batch.items()}
    _, metrics = parts.train_step(parts.init(), sharded)
    assert metrics["loss"] > 0


def test_links_lead_to_files_and_headings():
    for path in DOCS:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith(("http://", "https://")):
                continue
            file, _, anchor = target.partition("#")
            linked = path.parent / file if file else path
            assert linked.is_file(), f"{path.name} links to {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.M)
                assert anchor in map(slug, headings), f"{path.name} links to {target}"


def slug(heading):
    """The anchor that GitHub and MkDocs give a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def exists(name):
    """Tells whether "package.module.attribute" can be imported."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        try:
            functools.reduce(getattr, parts[length:], module)
        except AttributeError:
            return False
        return True
    return False


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_modules_and_files_in_text_exist(path):
    """Names such as `ssl_jax.losses.nt_xent`, and paths such as `ssl_jax/training/step.py`."""
    text = path.read_text()
    for name in set(re.findall(r"(?<![\w./-])ssl_jax(?:\.\w+)+", text)):
        assert name in ("ssl_jax.tar.gz", "ssl_jax.VERB") or exists(name), name
    folders = "ssl_jax|configs|tests|benchmarks|launch|docs"
    for name in set(re.findall(rf"(?<![\w./-])(?:{folders})/[\w./]*[\w/]", text)):
        # A package may also be a single module.
        assert any((ROOT / (name.rstrip("/") + end)).exists() for end in ("", ".py")), name


def test_config_page_has_every_field():
    sys.path.insert(0, str(ROOT / "docs"))
    tables = importlib.import_module("config_tables")
    page = (ROOT / "docs" / "config.md").read_text()
    assert "<!--" not in page
    assert tables.filled(page) == page, "run: python docs/config_tables.py"
    for row in configuration.describe():
        assert f"\n| `{row.name}` | " in page, row.name
        assert f" | {row.kind} |\n" in page


def test_every_page_is_in_the_navigation():
    site = (ROOT / "mkdocs.yml").read_text()
    for path in (ROOT / "docs").rglob("*.md"):
        name = path.relative_to(ROOT / "docs").as_posix()
        assert re.search(rf"(?<![\w/]){re.escape(name)}$", site, re.M), name


def test_every_exit_code_is_in_the_table():
    from ssl_jax import errors

    codes = {str(value) for value in vars(errors).values() if isinstance(value, int)}
    table = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert codes <= set(re.findall(r"^\| (\d+) \|", table, re.M))


def test_messages_in_the_guide_are_those_of_the_code():
    """Messages in bold, such as **`N examples < batch M`.**, where N, M and … stand for values."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    files = [*ROOT.glob("ssl_jax/**/*.py")]
    # Strings that Python joins, on one line or by +=, are one message.
    code = re.sub(r"\"\s+(?:\w+ \+= )?f?\"", "", "\n".join(file.read_text() for file in files))
    messages = re.findall(r"^\*\*`([^`]+)`", text, re.M)
    assert len(messages) > 8
    for message in messages:
        for part in re.split(r"\b[NM]\b|…", message):
            assert part in code, message


def test_pictures_are_small():
    for path in (ROOT / "docs" / "images").iterdir():
        assert path.stat().st_size < 150_000, path.name


def test_versions_agree():
    import ssl_jax

    assert f"## [{ssl_jax.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {ssl_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_no_file_names_a_machine():
    banned = re.compile(r"(?<![\w.])/(?:work|root|home|tmp)/")
    folders = ("ssl_jax", "configs", "benchmarks", "docs", "launch")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.[pm][yd]")]
    for path in [*files, *ROOT.glob("*.md"), ROOT / "Makefile"]:
        assert not banned.search(path.read_text()), path
    assert sys.version_info >= (3, 11)
