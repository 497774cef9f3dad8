"""One export from beginning to end: write, read back, compare, put in place."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ssl_jax.export import check, formats
from ssl_jax.export.folder import replaced, require_space
from ssl_jax.export.subject import Subject
from ssl_jax.report import model_card
from ssl_jax.rundir import workdir
from ssl_jax.weights import trees


class Written(NamedTuple):
    """An export that lies in its place."""

    folder: pathlib.Path
    errors: dict[str, float]  # by what read it back, relative
    usage: str  # lines of Python


def write(subject: Subject, name: str, out: pathlib.Path) -> Written:
    """Writes `out`/`name` anew; whatever goes wrong, an older export stays there as it was.

    Args:
      name: one of FORMATS.

    Raises:
      Fault: what was read back differs, or the disk is full or not writable.
    """
    module, folder = formats.get(name), out / name
    require_space(out, subject.bytes)
    with replaced(folder) as new:
        module.write(subject, new)
        want = subject.run_weights(subject.weights, check.images(subject.size))
        errors = check.require(module.read(subject, new), want, f"{subject.name} as {name}")
        record = check.record(subject, name, module.INPUT, want, errors)
        workdir.write_json(new / "check.json", record)
        workdir.write_json(new / "preprocess.json", preprocessing(subject, module.INPUT))
        workdir.write_text(new / "README.md", readme(subject, name, module, errors))
    return Written(folder, errors, module.usage(subject, folder))


def preprocessing(subject: Subject, given: formats.Input) -> dict[str, Any]:
    """Contents of preprocess.json."""
    size, crop = subject.size, subject.backbone.crop
    mean, std = subject.standardisation
    share = "" if crop == 1 else f"{crop:g} of "
    words = [
        f"Cut the central square, as wide as {share}the image's shorter side.",
        f"Resize it to {size} x {size} pixels: bicubic, antialiased, rounded to 8 bits.",
        "Divide by 255: RGB in [0, 1].",
    ]
    if not (any(mean) or set(std) != {1.0}):
        words.append("Subtract no mean and divide by no standard deviation.")
    elif given.standardised:
        words.append(f"Subtract the mean {list(mean)} and divide by {list(std)}, per channel.")
    else:
        words.append("Mean and standard deviation are part of the network: leave [0, 1] as it is.")
    words.append(f"Lay out as {given.layout}, float32.")
    return {
        "size": size,
        "crop": crop,
        "interpolation": "bicubic",
        "antialias": True,
        "range": [0, 1],
        "mean": list(mean),
        "std": list(std),
        "standardised_by": "you" if given.standardised else "the network",
        "layout": given.layout,
        "channels": "RGB",
        "words": words,
    }


def readme(subject: Subject, name: str, module: Any, errors: dict[str, float]) -> str:
    """The model card; paths in it are below DIR, since the folder will lie elsewhere."""
    usage: Callable[..., str] = module.usage
    facts = {
        "architecture": architecture(subject.model),
        "features": f"{subject.features:,}",
        "input": " ".join(preprocessing(subject, module.INPUT)["words"]),
        "format": name,
        "weights": subject.backbone.origin or subject.name,
        "check": f"{_worst(errors):.1e} of the largest output, read back by {', '.join(errors)}; "
        "check.json says how to repeat it",
    }
    if subject.has_logits:
        facts["classes"] = f"{subject.class_count:,}"
    if name == "timm":
        facts["library_name"] = "timm"
    return model_card.markdown(
        subject.run,
        name=subject.name,
        license=subject.license,
        usage="# DIR is this folder\n" + usage(subject, pathlib.PurePath("DIR")),
        facts=facts,
    )


def architecture(model: Mapping[str, Any]) -> str:
    """The encoder in a line: its name, and what is not as usual."""
    fields = {field.name: field.default for field in dataclasses.fields(trees.encoder(model))}
    usual = {k for k, v in trees.tuples(model).items() if k in fields and fields[k] == v}
    # How it started training is no matter of what it is.
    shown = {k: v for k, v in model.items() if k == "name" or k not in {*usual, "zero_gamma"}}
    return trees.describe(shown)


def _worst(errors: dict[str, float]) -> float:
    return max(errors.values())
