"""Writes one export: write, read back, compare, replace the older export."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ssl_jax.errors import CANNOT_CREATE, Fault
from ssl_jax.export import check, formats
from ssl_jax.export.atomic_folder import refuse_link, replace_folder, require_space
from ssl_jax.export.subject import Subject
from ssl_jax.report import model_card
from ssl_jax.rundir import workdir
from ssl_jax.weights import checksums, trees
from ssl_jax.weights.load import EXPORT_FILES


class WrittenExport(NamedTuple):
    """A finished export."""

    folder: pathlib.Path
    errors: dict[str, float]  # relative error by reader
    usage: str  # Python code that loads the export


def write(subject: Subject, name: str, out: pathlib.Path) -> WrittenExport:
    """Writes the export `out`/`name`. If anything fails, an older export there stays unchanged.

    Args:
      subject: the backbone to export.
      name: name of the format, one of `FORMATS`.
      out: folder that holds one folder per format.

    Raises:
      Fault: if the outputs of the export differ, if it contains a link, if its folder holds
        something else, or if the disk is full or not writable.
    """
    module, folder = formats.get(name), out / name
    refuse_link(folder)
    refuse_other_contents(folder)
    require_space(out, subject.bytes)
    with replace_folder(folder) as new:
        module.write(subject, new)
        expected = subject.run_weights(subject.weights, check.images(subject))
        outputs = module.read(subject, new)
        errors = check.require_agreement(outputs, expected, f"{subject.name} as {name}")
        record = check.record(subject, name, module.INPUT, expected, errors)
        workdir.write_json(new / "preprocess.json", preprocessing(subject, module.INPUT))
        workdir.write_text(new / checksums.CARD, readme(subject, name, module, errors))
        workdir.write_json(new / checksums.RECORD, checksums.seal(new, record))
    return WrittenExport(folder, errors, module.usage(subject, folder))


def refuse_other_contents(folder: pathlib.Path) -> None:
    """Checks that `folder` may be replaced: it is missing, empty, or an earlier export.

    With --out, it may be a folder of the user that only has the name of a format.

    Raises:
      Fault: with code CANNOT_CREATE otherwise.
    """
    if folder.is_dir():
        names = {path.name for path in folder.iterdir()}
        if not names or names & set(EXPORT_FILES):
            return
    elif not folder.exists():
        return
    raise Fault(
        f"{folder} exists and is no earlier export, since it has no {checksums.RECORD}. Nothing "
        "was changed. Move it away, or pass another folder as --out",
        CANNOT_CREATE,
    )


def preprocessing(subject: Subject, image_input: formats.Input) -> dict[str, Any]:
    """Returns the contents of preprocess.json."""
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
    elif image_input.standardised:
        words.append(f"Subtract the mean {list(mean)} and divide by {list(std)}, per channel.")
    else:
        words.append("Do not standardise: the network subtracts the mean and divides by the std.")
    words.append(f"Transpose to {image_input.layout}, float32.")
    return {
        "size": size,
        "crop": crop,
        "interpolation": "bicubic",
        "antialias": True,
        "range": [0, 1],
        "mean": list(mean),
        "std": list(std),
        "standardised_by": "you" if image_input.standardised else "the network",
        "layout": image_input.layout,
        "channels": "RGB",
        "words": words,
    }


def readme(subject: Subject, name: str, module: Any, errors: dict[str, float]) -> str:
    """Returns the model card. Its paths start with DIR, because users will move the folder."""
    usage: Callable[..., str] = module.usage
    facts = {
        "architecture": architecture(subject.model),
        "features": f"{subject.features:,}",
        "input": " ".join(preprocessing(subject, module.INPUT)["words"]),
        "format": name,
        "weights": subject.backbone.origin or subject.name,
        "check": f"relative error {max(errors.values()):.1e}, read back by {', '.join(errors)}; "
        "check.json describes how to repeat the check",
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
    """Returns the encoder in one line: its name, and the arguments that differ from defaults."""
    fields = {field.name: field.default for field in dataclasses.fields(trees.encoder(model))}
    default = {k for k, v in trees.lists_to_tuples(model).items() if k in fields and fields[k] == v}
    # zero_gamma affects only the initial values, not the architecture.
    shown = {k: v for k, v in model.items() if k == "name" or k not in {*default, "zero_gamma"}}
    return trees.describe(shown)
