"""Export the backbone of a run to the formats of other tools, and check each export.

    ssl-jax export --workdir=runs/digits --format=torch,stablehlo

Formats: timm, torchvision, torch (with the network's definition in one file), npz, stablehlo (the
program for any JAX), savedmodel (TensorFlow), onnx, orbax. The command writes the newest checkpoint
to OUT/FORMAT, reads it back, runs it on a seeded input and compares the outputs. It replaces an
older export only if the relative error is at most 1e-5. If some of several formats do not support
the encoder, the command writes the others and exits with the code of the first reason. Each folder
also holds README.md (a model card), preprocess.json and check.json. The command prints Python code
that loads the export. It needs no accelerator. See docs/export.md. Word vectors have one format,
word2vec, in text and binary.
"""

import os
import pathlib
import re
import time
from typing import TYPE_CHECKING

from absl import flags

from ssl_jax import cli
from ssl_jax import config as configuration
from ssl_jax.errors import MISSING_INPUT, USAGE, Fault
from ssl_jax.export import FORMATS, WORDS, atomic_folder
from ssl_jax.jobs import files
from ssl_jax.jobs.stop import Stop
from ssl_jax.rundir import workdir

if TYPE_CHECKING:
    from ssl_jax.export.subject import Subject


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
    out = output_folder(path, values.out)
    with Stop(ignore_signals_after=True) as stop:
        export(path, names, out, stop, head=values.head, license=values.license)


def parse_formats(names: list[str]) -> list[str]:
    """Returns the requested formats without repetitions.

    Raises:
      Fault: if there is no format, or an unknown one.
    """
    names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    for name in names:
        if name not in (*FORMATS, WORDS):
            suggestion = configuration.nearest(name, [*FORMATS, WORDS])
            raise Fault(f"--format={name}: unknown format; {suggestion}", USAGE)
    if not names:
        raise Fault(f"--format is empty. Pass one or more of {', '.join(FORMATS)}", USAGE)
    return names


def output_folder(path: pathlib.Path, out: str) -> pathlib.Path:
    """Returns the folder that will hold one folder per format.

    Args:
      path: value of --workdir.
      out: value of --out; empty for the default, `path`/export. A relative folder lies in
        `path`, or, if `path` is a file, in the current folder.

    Raises:
      Fault: if `path` does not exist, or if `out` is empty and `path` is a file or contains a
        link in place of the default.
    """
    if not workdir.exists(path):
        raise Fault(f"--workdir={path} does not exist", MISSING_INPUT)
    if not out and not path.is_dir():
        raise Fault(f"--workdir={path} is a file. Pass the folder for the export as --out", USAGE)
    if not path.is_dir():
        return pathlib.Path(out).expanduser().absolute()
    folder = pathlib.Path(out or "export").expanduser()
    return folder if folder.is_absolute() else files.inside(path, folder)


def export(
    path: pathlib.Path,
    names: list[str],
    out: pathlib.Path,
    stop: Stop,
    *,
    head: bool,
    license: str,
) -> None:
    """Exports the backbone at `path` to every format of `names` that supports it.

    Args:
      path: whatever `ssl_jax.load_backbone` accepts.
      names: formats, each one of `FORMATS`.
      out: folder that will hold one folder per format.
      stop: handles signals.
      head: True to export the modules behind the encoder too.
      license: identifier for the model card, or "".

    Raises:
      Fault: if an export fails, if no format supports the backbone (nothing is written then), or,
        after all other exports, if a format does not support it.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"  # for exact float32, and to leave accelerators free
    from ssl_jax.export.subject import Subject, slug
    from ssl_jax.pretrained import backbone
    from ssl_jax.report import run_files

    if WORDS in names:
        export_words(path, names, out)
        return
    encoder = backbone.load(path)
    if not encoder.size:
        message = f"{path} is not a run on images, and every export format holds encoders of images"
        advice = (
            f"Use its checkpoints by ssl_jax.load_backbone, or --format={WORDS} for word vectors"
        )
        raise Fault(f"{message}. {advice}", USAGE)
    subject = Subject(
        encoder,
        head=head,
        name=slug(path.stem if path.is_file() else path.name),
        license=license,
        run=run_files.read_run(path) if workdir.is_run(path) else None,
    )
    refused = refusals(subject, names)
    supported = [name for name in names if name not in refused]
    print(f"exporting {encoder.origin or subject.name} as {', '.join(supported)}", flush=True)
    if refused:
        print(describe(refused), flush=True)
    with workdir.open_workdir(out, flag="out"):
        stop.set_cleanup(lambda: atomic_folder.recover(*(out / name for name in supported)))
        for index, name in enumerate(supported, 1):
            print(f"{index} of {len(supported)}: {name} ...", flush=True)
            print(_write(subject, name, out), flush=True)
    if refused:
        message = f"wrote {', '.join(supported)}, but not every requested format"
        raise Fault(f"{message}\n{describe(refused)}", next(iter(refused.values())).code)


def export_words(path: pathlib.Path, names: list[str], out: pathlib.Path) -> None:
    """Exports the word vectors of the run at `path`.

    Raises:
      Fault: other formats are asked for, too, or the run has no word vectors.
    """
    from ssl_jax.export import words

    if names != [WORDS]:
        raise Fault(f"--format={WORDS} holds word vectors only; export it alone", USAGE)
    with workdir.open_workdir(out, flag="out"):
        folder, usage = words.write(path, out / WORDS)
    print(f"{folder}\n" + "".join(f"    {line}\n" for line in usage.splitlines()), flush=True)


def _write(subject: "Subject", name: str, out: pathlib.Path) -> str:
    """Writes one export; returns where it is, how well it agrees, and how to load it."""
    from ssl_jax.export.write import write

    start = time.monotonic()
    written = write(subject, name, out)
    errors = ", ".join(f"{error:.1e} ({reader})" for reader, error in written.errors.items())
    seconds = time.monotonic() - start
    usage = "".join(f"    {line}\n" for line in written.usage.splitlines())
    return f"{written.folder}\n  relative error: {errors}; {seconds:.1f} s\n{usage}"


def refusals(subject: "Subject", names: list[str]) -> dict[str, Fault]:
    """Returns the reason of every format that does not support the subject.

    Raises:
      Fault: if no format supports it.
    """
    from ssl_jax.export import formats

    refused = {}
    for name in names:
        try:
            formats.get(name).check_supported(subject)
        except Fault as fault:
            refused[name] = fault
    if len(refused) < len(names):
        return refused
    first = next(iter(refused.values()))
    if len(names) == 1:
        raise first
    what = subject.backbone.origin or subject.name
    message = f"wrote nothing: no requested format supports {what}"
    raise Fault(f"{message}\n{describe(refused)}", first.code)


def describe(refused: dict[str, Fault]) -> str:
    """Returns one line per format that is not written, with the reason."""
    return "\n".join(f"  not {name}: {fault}" for name, fault in refused.items())


if __name__ == "__main__":
    flags.DEFINE_string(
        "workdir", None, "Folder of the run, or any path that ssl_jax.load_backbone accepts."
    )
    flags.mark_flag_as_required("workdir")
    flags.DEFINE_list("format", [], f"Comma-separated formats: {', '.join(FORMATS)}; or {WORDS}.")
    flags.DEFINE_string(
        "out",
        "",
        "Folder that will hold one folder per format; default: WORKDIR/export. A relative folder "
        "lies in WORKDIR.",
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
