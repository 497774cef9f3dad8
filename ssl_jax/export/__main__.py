"""Export the backbone of a run to the formats of other tools, and check each export.

    python -m ssl_jax.export --workdir=runs/digits --format=torch,stablehlo

Formats: timm, torchvision, torch (with the network's definition in one file), npz, stablehlo (the
program for any JAX), savedmodel (TensorFlow), onnx, orbax. The command writes the newest checkpoint
to OUT/FORMAT, reads it back, runs it on a seeded input and compares the outputs. It replaces an
older export only if the relative error is at most 1e-5. Each folder also holds README.md (a model
card), preprocess.json and check.json. The command prints Python code that loads the export. It
needs no accelerator. See docs/export.md.
"""

import os
import pathlib
import re

from absl import flags

from ssl_jax import cli
from ssl_jax import config as configuration
from ssl_jax.errors import MISSING_INPUT, USAGE, Fault
from ssl_jax.export import FORMATS
from ssl_jax.rundir import workdir


def main() -> None:
    """Runs the command; see the module's docstring."""
    values = flags.FLAGS
    names = parse_formats(values.format)
    if not re.fullmatch(r"[A-Za-z0-9.-]{0,60}", values.license):
        raise Fault(
            f"--license={values.license} is not an identifier such as apache-2.0, mit or cc-by-4.0",
            USAGE,
        )
    path = pathlib.Path(values.workdir).expanduser().absolute()
    export(path, names, output_folder(path, values.out), head=values.head, license=values.license)


def parse_formats(names: list[str]) -> list[str]:
    """Returns the requested formats without repetitions.

    Raises:
      Fault: if there is no format, or an unknown one.
    """
    names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    for name in names:
        if name not in FORMATS:
            suggestion = configuration.nearest(name, list(FORMATS))
            raise Fault(f"--format={name}: unknown format; {suggestion}", USAGE)
    if not names:
        raise Fault(f"--format is empty. Pass one or more of {', '.join(FORMATS)}", USAGE)
    return names


def output_folder(path: pathlib.Path, out: str) -> pathlib.Path:
    """Returns the folder that will hold one folder per format.

    Args:
      path: value of --workdir.
      out: value of --out; empty for the default, `path`/export.

    Raises:
      Fault: if `path` does not exist, or if it is a file and `out` is empty.
    """
    if not workdir.exists(path):
        raise Fault(f"--workdir={path} does not exist", MISSING_INPUT)
    if not out and not path.is_dir():
        raise Fault(f"--workdir={path} is a file. Pass the folder for the export as --out", USAGE)
    return pathlib.Path(out).expanduser().absolute() if out else path / "export"


def export(
    path: pathlib.Path, names: list[str], out: pathlib.Path, *, head: bool, license: str
) -> None:
    """Exports the backbone at `path` to every format of `names`.

    Args:
      path: whatever `ssl_jax.load_backbone` accepts.
      names: formats, each one of `FORMATS`.
      out: folder that will hold one folder per format.
      head: True to export the modules behind the encoder too.
      license: identifier for the model card, or "".

    Raises:
      Fault: if a format does not support the backbone (nothing is written then), or if an export
        fails.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"  # for exact float32, and to leave accelerators free
    from ssl_jax.export import formats
    from ssl_jax.export.subject import Subject, slug
    from ssl_jax.export.write import write
    from ssl_jax.pretrained import backbone
    from ssl_jax.report import run_files

    encoder = backbone.load(path)
    if not encoder.size:
        message = f"{path} is not a run on images, and every export format holds encoders of images"
        raise Fault(f"{message}. Use its checkpoints by ssl_jax.load_backbone", USAGE)
    subject = Subject(
        encoder,
        head=head,
        name=slug(path.stem if path.is_file() else path.name),
        license=license,
        run=run_files.read_run(path) if workdir.is_run(path) else None,
    )
    for name in names:
        formats.get(name).check_supported(subject)
    with workdir.open_workdir(out, flag="out"):
        for name in names:
            written = write(subject, name, out)
            errors = ", ".join(
                f"{error:.1e} ({reader})" for reader, error in written.errors.items()
            )
            print(f"{written.folder}\n  relative error: {errors}", flush=True)
            print("".join(f"    {line}\n" for line in written.usage.splitlines()), flush=True)


if __name__ == "__main__":
    flags.DEFINE_string(
        "workdir", None, "Folder of the run, or any path that ssl_jax.load_backbone accepts."
    )
    flags.mark_flag_as_required("workdir")
    flags.DEFINE_list("format", [], f"Comma-separated formats: {', '.join(FORMATS)}.")
    flags.DEFINE_string(
        "out", "", "Folder that will hold one folder per format; default: WORKDIR/export."
    )
    flags.DEFINE_boolean(
        "head",
        False,
        "Also export the classifier of a fine-tuned run or student; npz and orbax export any head.",
    )
    flags.DEFINE_string(
        "license", "", "License of the weights for the model card, for example apache-2.0 or mit."
    )
    cli.run(main)
