"""Write the backbone of a run in the formats of other tools, each checked by reading it back.

    python -m ssl_jax.export --workdir=runs/digits --format=torch,stablehlo

Formats: timm, torchvision, torch (with the network's definition in one file), npz, stablehlo (the
program for any JAX), savedmodel (TensorFlow), onnx, orbax. Each is written into OUT/FORMAT from the
newest checkpoint, read back, run on a seeded input and compared; only what agrees to 1e-5 takes the
place of an older export. Beside the weights lie README.md (a model card), preprocess.json and
check.json. Prints the lines that load it. Needs no accelerator. See docs/export.md.
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
    """The verb: see the module's docstring."""
    values = flags.FLAGS
    names = chosen(values.format)
    if not re.fullmatch(r"[A-Za-z0-9.-]{0,60}", values.license):
        raise Fault(
            f"--license={values.license}: an identifier such as apache-2.0, mit or cc-by-4.0", USAGE
        )
    path = pathlib.Path(values.workdir).expanduser().absolute()
    export(path, names, destination(path, values.out), head=values.head, license=values.license)


def chosen(names: list[str]) -> list[str]:
    """The formats that were asked for, once each.

    Raises:
      Fault: none, or an unknown one.
    """
    names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    for name in names:
        if name not in FORMATS:
            near = configuration.nearest(name, list(FORMATS))
            raise Fault(f"--format={name}: unknown format; {near}", USAGE)
    if not names:
        raise Fault(f"--format: one or more of {', '.join(FORMATS)}", USAGE)
    return names


def destination(path: pathlib.Path, out: str) -> pathlib.Path:
    """Where the formats' folders go.

    Raises:
      Fault: nothing is at `path`, or it is a file, which has no inside to write to.
    """
    if not workdir.exists(path):
        raise Fault(f"--workdir: there is nothing at {path}", MISSING_INPUT)
    if not out and not path.is_dir():
        raise Fault(f"--workdir={path} is a file: say by --out where to write", USAGE)
    return pathlib.Path(out).expanduser().absolute() if out else path / "export"


def export(
    path: pathlib.Path, names: list[str], out: pathlib.Path, *, head: bool, license: str
) -> None:
    """Writes what lies at `path` in every format, or, if one of them cannot hold it, in none."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # float32 that is float32, and no accelerator is claimed
    from ssl_jax.export import formats
    from ssl_jax.export.subject import Subject, slug
    from ssl_jax.export.write import write
    from ssl_jax.pretrained import backbone
    from ssl_jax.report import run_files

    subject = Subject(
        backbone.load(path),
        head=head,
        name=slug(path.stem if path.is_file() else path.name),
        license=license,
        run=run_files.read_run(path) if workdir.is_run(path) else None,
    )
    for name in names:
        formats.get(name).refuse(subject)
    with workdir.open_workdir(out, flag="out"):
        for name in names:
            written = write(subject, name, out)
            errors = ", ".join(f"{value:.1e} by {by}" for by, value in written.errors.items())
            print(f"{written.folder}\n  off by {errors} (of the largest output)", flush=True)
            print("".join(f"    {line}\n" for line in written.usage.splitlines()), flush=True)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Run, or whatever else ssl_jax.load_backbone takes.")
    flags.mark_flag_as_required("workdir")
    flags.DEFINE_list("format", [], f"Formats, with commas between: {', '.join(FORMATS)}.")
    flags.DEFINE_string("out", "", "Folder of the formats' folders; default: WORKDIR/export.")
    flags.DEFINE_boolean(
        "head", False, "With the classifier of a fine-tuned run or student; npz, orbax: any head."
    )
    flags.DEFINE_string("license", "", "Of the weights, for the model card: apache-2.0, mit ...")
    cli.run(main)
