"""Every variant of every config file is complete, valid and documented, and makes a method."""

import importlib
import inspect
import pathlib

import pytest
import tiny

from ssl_jax import build, components, methods
from ssl_jax import config as configuration
from ssl_jax.pretrained import classifier
from ssl_jax.report import display_names

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = sorted({path.stem for path in (ROOT / "configs").glob("*.py")} - {"common"})
# Variants for a CPU, of configs that are not for images alone.
SMALL = {"clip": "cifar10_captions", "cpc_audio": "spoken_digit"}
SIZES = {"digits": 1297, "cifar10": 50_000, "imagenet": 1_281_167, "folder": 80}
SIZES |= {"librispeech": 28_539, "spoken": 2700, "vit": 400_000_000, "siglip": 400_000_000}
TEXT = {"word2vec"}  # config files of methods that learn from text, with other variants
PASSAGES = 10_000
FOLDER = configuration.DataFacts(images=80, classes=2, smallest_class=40)


def variants(name):
    """Returns the names of the functions that complete a variant in a config file."""
    module = importlib.import_module(f"configs.{name}")
    functions = inspect.getmembers(module, inspect.isfunction)
    own = [f for f, function in functions if function.__module__ == module.__name__]
    return [f for f in own if f != "get_config" and not f.startswith("_")]


@pytest.mark.parametrize(
    ("name", "variant"), [(name, variant) for name in NAMES for variant in variants(name)]
)
def test_a_variant_is_valid_documented_and_makes_a_method(name, variant, monkeypatch):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config(variant)
    if variant.startswith("folder") or config.data.source in ("audio", "text"):
        config.data.dir = "files"
        config, _ = configuration.adapt(config, FOLDER)
    if variant in ("vit_b16", "siglip_b16"):
        config.data.dir = "pairs"
    assert configuration.problems(config) == []
    assert f":{variant}" in module.__doc__
    monkeypatch.setattr(classifier, "load_teacher", tiny.teacher)
    size = PASSAGES if name in TEXT else SIZES[variant.split("_")[0]]
    if name in TEXT:
        config.data.max_words = 1000  # the method is made with a vocabulary of this size
    method = components.make_method(
        config,
        components.total_steps(config, size),
        size,
        devices=1,
        teacher=build.load_teacher(config),
    )
    assert isinstance(method, methods.Method)
    tx, _ = components.make_optimizer(config, size, components.total_steps(config, size))
    assert callable(tx.update)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_file_has_four_variants_and_is_documented(name):
    module = importlib.import_module(f"configs.{name}")
    if name in TEXT:
        config = module.get_config()
    else:
        for_images = {"imagenet", "cifar10", "cifar10_cpu", "folder"}
        assert ({SMALL[name], "folder"} if name in SMALL else for_images) <= set(variants(name))
        config = module.get_config(SMALL.get(name, "cifar10_cpu"))
    assert config.method.name in display_names.METHOD_NAMES
    assert f"`configs/{name}.py`" in (ROOT / "docs" / "methods.md").read_text()
