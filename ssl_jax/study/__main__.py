"""Runs a grid of trainings and lays its table beside SimCLR's published one.

    python -m ssl_jax.study --config=configs/simclr.py:digits --workdir=studies/digits \\
        --grid="batch=64,128,256,512;epochs=4,8;lr_rule=linear,sqrt;seed=0,1,2"

Keys: batch, epochs, steps, lr_rule, seed, devices, and every field of the config by its name. Where
lr_rule is a key, the base rate of each rule is the one that agrees with the config's own at the
config's own batch size. The same command again skips what is done, resumes what was cut and tries
anew what failed; without --config and --grid it goes on with those of the study. --print shows the
cells and runs nothing, --gather only writes the table and the page, --jobs writes jobs for a
cluster, each of which runs one cell by --cell. See docs/scale.md.
"""

import os
import pathlib
import re
import sys
import tempfile

from absl import flags

from ssl_jax import cli
from ssl_jax.errors import IO_ERROR, USAGE, Fault
from ssl_jax.jobs.process_number import process_number
from ssl_jax.rundir import workdir
from ssl_jax.study import folder, grid, listing, run
from ssl_jax.study.cells import Cell
from ssl_jax.study.folder import Study


def main() -> None:
    """The verb: see the module's docstring."""
    values = flags.FLAGS
    if workdir.is_remote(values.workdir):
        raise Fault(f"--workdir={values.workdir}: give a local or mounted folder", USAGE)
    given = [values["print"].value, values.gather, bool(values.jobs), bool(values.cell)]
    if sum(given) > 1:
        raise Fault("--print, --gather, --jobs and --cell: one at a time", USAGE)
    path = pathlib.Path(values.workdir).expanduser().absolute()
    study = folder.open_study(path, cli.config(), config_arguments(sys.argv[1:]), values.grid)
    if values["print"].value:
        cells = chosen(study, values.grid)
        print(listing.text(study, cells, listing.sizes(study, cells, strict=False)))
    elif values.gather:
        gather(study)
    elif values.cell:
        one(study, values.cell)
    elif values.jobs:
        write_jobs(study, chosen(study, values.grid), values.jobs)
    else:
        run_here(study, chosen(study, values.grid))


def config_arguments(arguments: list[str]) -> list[str]:
    """The words of a command line that make its config, each as --name=value."""
    found = []
    for i, word in enumerate(arguments):
        if re.match(r"--?config(\.|=|$)", word):
            separate = "=" not in word and i + 1 < len(arguments)
            found.append(f"{word}={arguments[i + 1]}" if separate else word)
    return found


def chosen(study: Study, text: str) -> list[Cell]:
    """The cells of the grid that was given, all when none was."""
    if not text:
        return study.cells
    parsed, _ = grid.parse(text, study.config)
    names = {grid.name(setting) for setting in grid.settings(parsed)}
    names |= {cell.same_as for cell in study.cells if cell.name in names}
    return [cell for cell in study.cells if cell.name in names]


def run_here(study: Study, cells: list[Cell]) -> None:
    """Runs the cells one after another, gathers, and says what failed."""
    print(listing.text(study, cells, listing.sizes(study, cells, strict=True)), flush=True)
    with workdir.open_workdir(study.path), tempfile.TemporaryDirectory() as cache:
        folder.save(study)
        with run.Runner(study, cache) as runner:
            failed = runner.all(cells, lambda line: print(line, flush=True))
    gather(study)
    if failed:
        code = study.record(failed[0])["exit"] or IO_ERROR  # ended well, but left too little
        raise Fault(listing.failures(study, failed), code)


def one(study: Study, index: str) -> None:
    """Runs one cell as (a process of) a job; its exit code is the training's."""
    cell = numbered(study, index)
    cell = next((c for c in study.cells if c.name == cell.same_as), cell)
    if folder.status(study, cell) in ("done", "diverged"):
        print(f"{cell.name}: {folder.status(study, cell)}")
        return
    with run.Runner(study) as runner:
        sys.exit(runner.one(cell, write=process_number(os.environ) == 0, show=True))


def numbered(study: Study, index: str) -> Cell:
    """The cell that --cell names; raises Fault where there is none."""
    text = os.environ.get("SLURM_ARRAY_TASK_ID", "") if index == "slurm" else index
    if not text:
        raise Fault("--cell=slurm: SLURM_ARRAY_TASK_ID is not set: sbatch --array sets it", USAGE)
    if not text.isdigit() or int(text) >= len(study.cells):
        raise Fault(f"--cell={text}: a number from 0 to {len(study.cells) - 1}", USAGE)
    return study.cells[int(text)]


def gather(study: Study) -> None:
    """Writes study.csv, figures/ and study.html; prints the table."""
    from ssl_jax.study import page

    print(page.write(study), flush=True)


def write_jobs(study: Study, cells: list[Cell], kind: str) -> None:
    """Writes jobs/ and prints the commands that submit them."""
    from ssl_jax.study import jobs

    values = flags.FLAGS
    with workdir.open_workdir(study.path):
        folder.save(study)
        given = values["values"].value or []
        print(jobs.write(study, cells, kind, given, values.job_workdir))


if __name__ == "__main__":
    cli.define_config()
    cli.define_workdir()
    flags.DEFINE_string("grid", "", "KEY=VALUE,VALUE;KEY=VALUE,... of the cells.")
    flags.DEFINE_boolean("print", False, "Show the cells; run nothing.")
    flags.DEFINE_boolean("gather", False, "Write table and page of what is there; run nothing.")
    flags.DEFINE_enum("jobs", None, ["slurm", "gke", "skypilot"], "Write jobs; run nothing.")
    flags.DEFINE_list(
        "values", [], "Of --jobs: NAME=VALUE of the template, DEVICES:NAME=VALUE of some cells."
    )
    flags.DEFINE_string("job_workdir", "", "Of --jobs: the study's folder as the jobs see it.")
    flags.DEFINE_string("cell", "", "Number of the one cell to run, or slurm: the array task's.")
    words = sys.argv[1:]
    if not config_arguments(words):
        for word in words:
            if match := re.match(r"--?workdir=(.+)", word):
                sys.argv += folder.arguments(pathlib.Path(match[1]).expanduser().absolute())
    cli.run(main)
