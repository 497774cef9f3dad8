"""Every published recipe has its authors' numbers, or a difference that `official.py` explains."""

import importlib
import inspect
import pathlib

import jax
import jax.numpy as jnp
import official
import pytest

from ssl_jax import components
from ssl_jax.inputs.image.views import views_from_fields
from ssl_jax.optim import optimizers

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
IMAGES = {"imagenet": 1_281_167, "cifar10": 50_000}
# Losses of SimCLR that its authors do not have; the base is simclr:cifar10.
OTHER_LOSSES = (
    *("cifar10_decoupled", "cifar10_debiased", "cifar10_hard_negatives", "cifar10_adversarial"),
)


def quantities(name):
    """Returns the quantities of a variant such as "byol:cifar10", under names like "optim/peak"."""
    config = load(name)
    sections = {
        "model": {k: v for k, v in config.model.items() if k not in ("init", "dtype")},
        "method": config.method.to_dict(),
        "optim": optimisation(config),
        "train": {k: config.train[k] for k in ("batch_size", "epochs")},
        "heads": heads(config),
    }
    assert config.train.steps == 0
    flat = {f"{section}/{k}": v for section, fields in sections.items() for k, v in fields.items()}
    for label, view in labelled_views(config.augment).items():
        flat |= {f"views/{label}/{k}": v for k, v in view.items()}
    if config.method.name == "barlow_twins":
        # The authors have no factor of the loss, but two rates; LARS hides the factor from weights.
        scale = flat.pop("method/scale")
        flat |= {
            "optim/decay": flat["optim/decay"] / scale,
            "optim/decay_end": flat["optim/decay_end"] / scale,
            "optim/bias_peak": flat["optim/peak"] * scale,
        }
    return flat


def load(name):
    module, _, variant = name.partition(":")
    return importlib.import_module(f"configs.{module}").get_config(variant)


def images(config):
    return next(size for data, size in IMAGES.items() if data in config.data.source)


def optimisation(config):
    """Returns the optimizer's fields, without those that it does not use, and derived rates."""
    fields = config.optim.to_dict()
    lr, batch = fields.pop("lr"), config.train.batch_size
    total = components.total_steps(config, images(config))
    _, rate = components.make_optimizer(config, images(config), total)
    derived = {
        "peak": optimizers.learning_rate(lr, fields["lr_rule"], batch),
        "decay": fields.pop("weight_decay"),
        "start": float(rate(0)) if fields["warmup_epochs"] else 0,
        "end": float(rate(total)),
    }
    decay_end = fields.pop("weight_decay_end")
    derived["decay_end"] = derived["decay"] if decay_end is None else decay_end
    unused = {
        "lars": {"b2"},
        "sgd": {"b2", "lr_in_momentum", "trust_coefficient", "trust_clip", "adapt_all"},
        "adamw": {"nesterov", "lr_in_momentum", "trust_coefficient", "trust_clip", "adapt_all"},
    }[fields["name"]]
    unused |= {"drops", "drop"} if fields["schedule"] != "step" else set()
    return {k: v for k, v in (fields | derived).items() if k not in unused}


def labelled_views(augment):
    """Returns {"1": fields, "2": fields, "local": fields and their number}, without unused ones."""
    every = views_from_fields(augment.to_dict())
    full = {str(i + 1): effective(view) for i, view in enumerate(every[: augment.views])}
    local = every[augment.views :]
    return full | ({"local": effective(local[0]) | {"views": len(local)}} if local else {})


def effective(view):
    fields = view._asdict()
    if not fields["jitter"]:
        for name in ("brightness", "contrast", "saturation", "hue"):
            del fields[name]
    if not fields["blur"]:
        del fields["blur_sigma"], fields["blur_kernel"]
    return fields


def heads(config):
    """Returns the layers of the heads as `official.heads` writes them, from the real parameters."""
    total = components.total_steps(config, images(config))
    method = components.make_method(config, total, images(config), devices=1)
    batch = config.train.batch_size
    arrays = components.make_input(config).seen
    spec = {k: jax.ShapeDtypeStruct((batch, *v.shape), v.dtype) for k, v in arrays.items()}
    spec["index"] = jax.ShapeDtypeStruct((batch,), jnp.int32)
    params, extra = jax.eval_shape(method.init, jax.random.key(0), spec)
    stats = extra["batch_stats"].get("online", extra["batch_stats"])
    names = (name for name, module in params.items() if name != "encoder" and "dense0" in module)
    return {name: layers(params[name], stats.get(name, {})) for name in names}


def layers(params, stats):
    found = []
    for i in range(sum(name.startswith("dense") for name in params)):
        dense, norm = params[f"dense{i}"], params.get(f"bn{i}", {})
        text = str(dense["kernel"].shape[1]) + (" bias" if "bias" in dense else "")
        if f"bn{i}" in stats:
            text += {0: " plain", 1: " scale", 2: " bn"}[len(norm)]
        found.append(text)
    return tuple(found)


def same(value, other):
    """Compares numbers up to rounding, and sequences element by element."""
    if isinstance(value, tuple | list) and isinstance(other, tuple | list):
        return len(value) == len(other) and all(map(same, value, other))
    if isinstance(value, bool | str | dict) or isinstance(other, bool | str | dict):
        return value == other
    return value == pytest.approx(other, rel=1e-6, abs=1e-12)


def published():
    names = []
    for path in sorted(CONFIGS.glob("*.py")):
        if path.stem == "common" or path.stem in official.NO_RECIPE:
            continue
        module = importlib.import_module(f"configs.{path.stem}")
        functions = inspect.getmembers(module, inspect.isfunction)
        variants = [f for f, function in functions if function.__module__ == module.__name__]
        names += [
            f"{path.stem}:{variant}"
            for variant in variants
            if variant.startswith(("imagenet", "cifar10"))
            and not variant.startswith("cifar10_cpu")
            and variant not in OTHER_LOSSES
            and f"{path.stem}:{variant}" not in official.NO_RECIPE
        ]
    return names


def test_the_table_has_every_published_variant():
    assert sorted(official.RECIPES) == sorted(published())


@pytest.mark.parametrize("name", sorted(official.RECIPES))
def test_a_recipe_has_the_official_numbers(name):
    recipe, ours = official.RECIPES[name], quantities(name)
    assert sorted(recipe.values) == sorted(ours)
    assert recipe.differs.keys() <= recipe.values.keys()
    expected = recipe.values | {key: value for key, (value, _) in recipe.differs.items()}
    wrong = {k: (v, expected[k]) for k, v in ours.items() if not same(v, expected[k])}
    assert not wrong, f"{{quantity: (config, table)}}: {wrong}"


@pytest.mark.parametrize("name", sorted(official.RECIPES))
def test_a_listed_difference_is_one(name):
    recipe = official.RECIPES[name]
    for key, (value, reason) in recipe.differs.items():
        assert not same(value, recipe.values[key]), key
        assert reason
