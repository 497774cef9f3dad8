"""Every setting of a run: its default, its meaning, its valid range, and what may change later.

Read before JAX or TensorFlow is imported, so that a mistake is reported in under two seconds.
ConfigDict lives here, in `configs/` and in the verbs; everything below takes plain keywords.
"""

import difflib
import itertools
import json
import math
import os
import pathlib
import pkgutil
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from ssl_jax import evals, inputs, models, plugins
from ssl_jax.errors import BAD_DATA, MISSING_INPUT, Fault

# What a run is: changing one of these makes another run, in another workdir.
IDENTITY = (
    *("data.source", "data.split", "data.channels", "augment.", "model.", "method."),
    "optim.name",
    *("optim.groups.", "optim.frozen", "optim.lr_in_momentum", "optim.weight_decay_end"),
    *("train.batch_size", "train.seed", "train.probe", "finetune."),
)
# How long and how hard it trains: `--allow_change=optim.lr` lets a run go on with another value.
SCHEDULE = ("optim.", "train.epochs", "train.steps")
# Everything else is free: where data lies, how often to log, how to evaluate, where to compute.
FREE = ("augment.placement", "model.dtype")
IMPORTED = "imported"  # method of weights that no run made
# Fields that came after the first checkpoints: a run without them has these values, and goes on.
ADDED: dict[str, Any] = {
    "model.padding": "torch",
    "model.mean": (0.0, 0.0, 0.0),
    "model.std": (1.0, 1.0, 1.0),
    "model.positions": "sincos",
    "model.init": "",
    "data.label": "",
    "data.channels": 3,
}
# Fields of `optim` that a group of parameters cannot have for itself.
SHARED = ("groups", "frozen", "clip_norm")


def default_config(source: str = "digits") -> ml_collections.ConfigDict:
    """Returns the fields that every config has; a file in `configs/` changes what differs.

    A config file that names a source outside the package thereby allows its module.

    Args:
      source: `data.source`, whose modality has the fields of `augment`.
    """
    if plugins.is_external(source):
        plugins.allow(source)
    return _defaults(source)


def allow_modules(config: ml_collections.ConfigDict) -> None:
    """Allows the modules outside the package that a config of the user's own names."""
    for name in (config.data.source, config.method.name, config.model.name):
        if plugins.is_external(name):
            plugins.allow(name)


def _defaults(source: str) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.data = {
        "source": source,  # digits | folder | tfds:<name> | module:function
        "dir": "",  # of the folder, or tensorflow-datasets' data_dir
        "split": "train",  # of a prepared dataset also a part, "train[:10000]"
        "eval_split": "test",  # labelled images for evaluation; "" for none
        "channels": 3,  # of images: 1 (grey) | 3 (RGB) | 4 (RGBA)
        "label": "",  # the label field for probe and evaluation; "" for the default one
        "on_bad_image": "stop",  # stop | quarantine (replace by the next readable image)
        "max_bad": 0.001,  # fraction of the images that quarantine tolerates
    }
    config.augment = inputs.modality(source).default_fields()
    config.model = {
        "name": "resnet50",
        "width": 1.0,
        "stem": "imagenet",  # imagenet | cifar
        "sk_ratio": 0.0,  # selective kernels: 0.0625 in SimCLR v2, 0 for none
        "zero_gamma": True,  # residual blocks start as the identity
        "padding": "torch",  # torch | simclr | same: where the edges of images are padded
        "mean": (0.0, 0.0, 0.0),  # images in [0, 1] are standardised by these first
        "std": (1.0, 1.0, 1.0),
        "init": "",  # a run, an export or a file: weights that the encoder starts from
        "bn_group": 0,  # rows that share BatchNorm statistics (each view is a row); 0: all
        "dtype": "auto",  # auto (bfloat16 on accelerators, float32 on CPU) | float32 | bfloat16
    }
    config.method = {"name": "simclr"}
    config.optim = {
        "name": "lars",  # lars | sgd | adamw
        "lr": 0.3,
        "lr_rule": "linear",  # linear: lr * batch/256 | sqrt: lr * sqrt(batch) | constant
        "schedule": "cosine",  # cosine | step | constant, after the warm-up
        "warmup_epochs": 10.0,
        "drops": (0.6, 0.8),  # step: where in the run, as fractions of its length ...
        "drop": 0.1,  # ... the rate is multiplied by this
        "weight_decay": 1e-6,
        "weight_decay_end": placeholder(float),  # where a cosine leads it; None: it stays
        "momentum": 0.9,  # adamw: b1
        "nesterov": False,  # lars, sgd
        "b2": 0.999,  # adamw
        "lr_in_momentum": True,  # lars; False: after the momentum buffer, as in BYOL and MoCo v3
        # Other values for parts of the model, e.g. {"predictor": {"schedule": "constant"}}, by the
        # names at the top of the printed table of parameters.
        "groups": {},
        "frozen": (),  # paths of parameters that never change, e.g. ("encoder/patch_embed",)
        "clip_norm": 0.0,  # largest norm of the whole gradient; 0: any
    }
    config.train = {
        "batch_size": 256,  # global, in images
        "epochs": 100.0,
        "steps": 0,  # overrides epochs when positive
        "microbatch": 0,  # images encoded at once over all devices; 0: the whole batch
        "noise_scale": False,  # log the gradient noise scale; needs micro-batches
        "seed": 0,
        "probe": True,  # online linear probe beside the training, when there are labels
        "log_every": 10,  # steps
        "checkpoint_every": 500,  # steps
        "keep": 2,  # checkpoints
    }
    config.parallel = {
        "fsdp": 1,  # devices over which parameters and optimizer state are divided; 1: none
    }
    config.eval = {
        # Of knn, linear, label_free, few_shot, layers, linear_sgd; docs/evaluation.md has each.
        "protocols": ("knn", "linear", "label_free"),
        "batch_size": 256,
        "crop": 1.0,  # centre crop, fraction of the image's short side; 0.875 on ImageNet
        "knn_k": 200,
        "knn_temperature": 0.1,
        "labels_per_class": (0,),  # one linear evaluation each; 0 takes all labels
        "draws": 1,  # of labels, when few are taken
        "few_shot_draws": 5,
        "sgd_epochs": 90.0,  # of linear_sgd
        "sgd_lr": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),  # times batch / 256; the best is taken
        "sgd_batch_size": 256,
        "max_train": 0,  # train images for evaluation; 0: all
        "baselines": True,  # beside the method: the untrained encoder and raw pixels
    }
    return config


def finetuning(pretrained: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The default config of fine-tuning what the run of config `pretrained` has learnt.

    SimCLR's recipe for few labels (arXiv 2002.05709, appendix on semi-supervised learning): SGD
    with Nesterov momentum at 0.05 batch / 256, 60 epochs (30 with a tenth of the labels), neither
    warm-up nor decay; the crop and the flip of pre-training without its other augmentations.
    SimCLR v2's LARS at 0.005 sqrt(batch) needs its long runs of big batches: on CIFAR-10, 400 steps
    of 128 images ended 10 points below this.
    """
    config = pretrained.copy_and_resolve_references()
    with config.unlocked():
        config.augment = default_config().augment
        geometry = ("size", "crop_area", "crop_aspect", "flip", "placement")
        config.augment.update({field: pretrained.augment[field] for field in geometry})
        config.augment.update(views=1, jitter=0.0, grayscale=0.0, blur=0.0)
        config.optim = default_config().optim
        config.optim.update(name="sgd", nesterov=True, lr=0.05, warmup_epochs=0.0, weight_decay=0.0)
        config.train.update(epochs=60.0, steps=0, microbatch=0, noise_scale=False, probe=False)
        config.train.batch_size = min(pretrained.train.batch_size, 1024)
        config.finetune = {
            "pretrained": "",  # workdir of the run
            "head_layer": 0,  # layers of the projection head that are kept; 1 in SimCLR v2
            "fraction": 1.0,  # of each class's labels
            "labels_per_class": 0,  # instead of a fraction, so many
        }
    return config


def imported(model: dict[str, Any], size: int, crop: float) -> ml_collections.ConfigDict:
    """The default config of a run on weights that another project trained.

    Args:
      model: fields of `models.get`.
      size: of its images, in pixels.
      crop: central part of an image's short side that evaluation shows.
    """
    config = default_config()
    with config.unlocked():
        kept = {field: config.model[field] for field in ("bn_group", "dtype", "init")}
        config.model = {**model, **kept}
        config.method = {"name": IMPORTED}
        config.augment.update(size=size, crop_area=(0.08, 1.0))
        config.eval.crop = crop
    return config


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """{"optim.lr": 0.3, ...} of a ConfigDict or of nested dicts."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def to_json(config: Any) -> str:
    """Canonical JSON of a config."""
    plain = config.to_dict() if hasattr(config, "to_dict") else config
    return json.dumps(plain, indent=2, sort_keys=True)


def from_json(text: str) -> ml_collections.ConfigDict:
    """The config that `to_json` wrote; JSON's lists become tuples again."""

    def tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: tuples(v) for k, v in value.items()}
        return tuple(value) if isinstance(value, list) else value

    return ml_collections.ConfigDict(tuples(json.loads(text)))


def load(path: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of the run at `path`; raises Fault where there is none."""
    file = path / "config.json"
    if not file.is_file():
        raise Fault(f"no run at {path}: {file.name} is missing", MISSING_INPUT)
    try:
        saved = from_json(file.read_text())
        # This config may come from anybody, so it allows no module to be imported.
        config = _defaults(saved.get("data", {}).get("source", "digits"))
        with config.unlocked():
            # A family's own fields: another family's defaults must not fill them up.
            config.model, config.method = {}, {}
            config.update(saved)
    except ValueError as error:
        raise Fault(f"{file} is not JSON: {error}; restore it", BAD_DATA) from error
    return config


def nearest(word: str, choices: list[str]) -> str:
    """ "; did you mean x?" or, without a near match, the choices."""
    match = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else f"choose from: {', '.join(choices)}"


def problems(config: ml_collections.ConfigDict) -> list[str]:
    """Everything that is wrong with the values of `config`, one sentence each."""
    flat = flatten(config)
    found = []

    def check(field: str, good: bool, need: str) -> None:
        if not good:
            found.append(f"{field}={flat[field]!r}: {need}")

    def choice(field: str, choices: list[str]) -> None:
        check(field, flat[field] in choices, nearest(str(flat[field]), choices))

    if "pretrained" not in config and not plugins.is_external(config.method.name):
        choice("method.name", [*_modules("methods"), *[IMPORTED] * ("finetune" in config)])
    if not plugins.is_external(config.model.name):
        choice("model.name", models.names())
    choice("data.on_bad_image", ["stop", "quarantine"])
    choice("model.dtype", ["auto", "float32", "bfloat16"])
    words = {
        "stem": ["imagenet", "cifar"],
        "padding": ["torch", "simclr", "same"],
        "positions": ["sincos", "learned"],
        "pool": ["token", "mean"],
    }
    for field, allowed in words.items():
        if f"model.{field}" in flat:  # some are ResNets' only, some ViTs'
            choice(f"model.{field}", allowed)
    for field in ("model.mean", "model.std"):
        numbers = flat.get(field, (1.0,) * 3)
        good = len(numbers) == 3 and all(math.isfinite(n) for n in numbers)
        check(field, good and (field == "model.mean" or min(numbers) > 0), "three numbers, std > 0")
    source = flat["data.source"]
    known = source in ("digits", "folder") or source.startswith("tfds:")
    known = known or plugins.is_external(source)
    check("data.source", known, nearest(source, ["digits", "folder", "tfds:<name>"]))
    check("data.dir", bool(flat["data.dir"]) or source != "folder", "name the folder of images")
    for field in ("data.channels", "train.batch_size", "train.log_every", "train.checkpoint_every"):
        check(field, flat.get(field, 1) >= 1, "at least 1")
    for field in ("train.keep", "eval.knn_k", "eval.draws", "eval.batch_size", "parallel.fsdp"):
        check(field, flat[field] >= 1, "at least 1")
    for field in ("eval.few_shot_draws", "eval.sgd_batch_size"):
        check(field, flat[field] >= 1, "at least 1")
    for field in ("train.steps", "train.microbatch", "model.bn_group"):
        check(field, flat[field] >= 0, "0 or more")
    for field in ("train.epochs", "model.sk_ratio", "data.max_bad"):
        good = math.isfinite(flat.get(field, 0)) and flat.get(field, 0) >= 0
        check(field, good, "a finite number, 0 or more")
    for field in ("model.width", "eval.knn_temperature"):
        check(field, flat.get(field, 1) > 0, "more than 0")
    check("eval.crop", 0 < flat["eval.crop"] <= 1, "in (0, 1]")
    check("train.epochs", flat["train.steps"] > 0 or flat["train.epochs"] > 0, "more than 0")
    if flat["train.microbatch"]:
        grouped = flat["model.bn_group"] > 0
        need = (
            "needs model.bn_group, e.g. 32 (rows, all full-size views counted; it divides those of "
            "one device's micro-batch): BatchNorm over the whole batch would couple micro-batches"
        )
        check("train.microbatch", grouped, need)
    several = 0 < flat["train.microbatch"] < flat["train.batch_size"]
    check("train.noise_scale", several or not flat["train.noise_scale"], "needs train.microbatch")
    few = [n for n in flat["eval.labels_per_class"] if n == 1 or n < 0]
    check("eval.labels_per_class", not few, "each 0 (all labels) or at least 2: one is held out")
    for word in flat["eval.protocols"]:
        check("eval.protocols", word in evals.PROTOCOLS, nearest(str(word), [*evals.PROTOCOLS]))
    epochs = flat["eval.sgd_epochs"]
    check("eval.sgd_epochs", _is_number(epochs) and epochs > 0, "a finite number above 0")
    rates = flat["eval.sgd_lr"]
    good = len(rates) > 0 and all(_is_number(rate) and rate > 0 for rate in rates)
    check("eval.sgd_lr", good, "one rate or more, each above 0")
    if "finetune" in config:
        check("finetune.head_layer", flat["finetune.head_layer"] >= 0, "0 or more")
        check("finetune.fraction", 0 < flat["finetune.fraction"] <= 1, "in (0, 1]")
        one = flat["finetune.fraction"] == 1 or not flat["finetune.labels_per_class"]
        check("finetune.fraction", one, "1, or labels_per_class 0: give one of the two")
        check("finetune.labels_per_class", flat["finetune.labels_per_class"] >= 0, "0 or more")
    return (
        found
        + _optim_problems(config.optim)
        + inputs.modality(config.data.source).problems(config.augment.to_dict())
    )


def _optim_problems(optim: ml_collections.ConfigDict) -> list[str]:
    main = {field: value for field, value in optim.items() if field not in SHARED}
    found = _settings_problems(main, "optim")
    if not _is_number(optim.clip_norm):
        found.append(f"optim.clip_norm={optim.clip_norm!r}: a finite number, 0 or more")
    for key, group in optim.groups.items():
        where = f"optim.groups.{key}"
        changes = group.to_dict() if hasattr(group, "items") else {}
        if not changes:
            found.append(f"{where}: give the fields that differ from optim's, e.g. {{'lr': 0.1}}")
        unknown = [field for field in changes if field not in main]
        found += [f"{where}.{field}: unknown; {nearest(field, list(main))}" for field in unknown]
        found += _settings_problems({f: v for f, v in changes.items() if f in main}, where)
    return found


def _settings_problems(settings: dict[str, Any], where: str) -> list[str]:
    """Of one optimizer's fields, or of those that a group changes."""
    choices = {
        "name": ["lars", "sgd", "adamw"],
        "lr_rule": ["linear", "sqrt", "constant"],
        "schedule": ["cosine", "step", "constant"],
    }
    found = []
    for field, value in settings.items():
        if field in choices:
            good, need = value in choices[field], nearest(str(value), choices[field])
        elif field in ("nesterov", "lr_in_momentum"):
            good, need = isinstance(value, bool), "True or False"
        elif field in ("momentum", "b2"):
            good, need = _is_number(value, below=1), "in [0, 1)"
        elif field == "drop":
            good, need = _is_number(value, below=1) and value > 0, "in (0, 1)"
        elif field == "drops":
            numbers = isinstance(value, tuple) and all(map(_is_number, value))
            good = numbers and all(a < b for a, b in itertools.pairwise((0, *value, 1)))
            need = "fractions of the run, rising, each in (0, 1)"
        else:
            good = _is_number(value) or (field == "weight_decay_end" and value is None)
            need = "a finite number, 0 or more"
        if not good:
            found.append(f"{where}.{field}={value!r}: {need}")
    return found


def _is_number(value: Any, below: float = math.inf) -> bool:
    return isinstance(value, int | float) and 0 <= value < below


def _modules(package: str) -> list[str]:
    folder = os.path.join(os.path.dirname(os.path.dirname(__file__)), package)
    return sorted(m.name for m in pkgutil.iter_modules([folder]) if m.name[0] != "_")


def changes(old: Any, new: Any) -> dict[str, list[str]]:
    """What differs between two configs, by class: {"identity" | "schedule": ["a.b: 1 -> 2"]}."""
    before, after = (without_added(flatten(json.loads(to_json(c)))) for c in (old, new))
    found: dict[str, list[str]] = {"identity": [], "schedule": []}
    for field in sorted(before.keys() | after.keys()):
        if before.get(field) != after.get(field) and (kind := _class(field)):
            line = f"{field}: {before.get(field, 'absent')!r} -> {after.get(field, 'absent')!r}"
            found[kind].append(line)
    return found


def without_added(flat: dict[str, Any]) -> dict[str, Any]:
    """A flat config less the `ADDED` fields that have the value of runs without them."""
    added = json.loads(json.dumps(ADDED))
    plain = json.loads(json.dumps(flat))
    return {k: v for k, v in flat.items() if k not in added or plain[k] != added[k]}


def is_identity(field: str) -> bool:
    """Whether another value of `field` makes another run."""
    return _class(field) == "identity"


def _class(field: str) -> str | None:
    if field in FREE:
        return None
    for kind, prefixes in (("identity", IDENTITY), ("schedule", SCHEDULE)):
        if any(field == p or (p.endswith(".") and field.startswith(p)) for p in prefixes):
            return kind
    return None
