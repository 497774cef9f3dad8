"""Trains a grid of runs, and tabulates their accuracies.

    ssl-jax study --config=simclr:digits --workdir=studies/digits \\
        --grid="batch=64,128,256,512;epochs=4,8;lr_rule=linear,sqrt;seed=0,1,2"

Keys of a grid: batch, epochs, steps, lr_rule, seed, devices, and the full name of any config field.
If lr_rule is a key, each rule gets a base rate such that all rules agree with the config at the
config's batch size. The same command again skips finished cells, resumes stopped cells and retries
failed cells. Without --config and --grid, the command continues the study in --workdir. --print
shows the cells and runs nothing. --gather only writes the table and the page. --jobs writes jobs
for a cluster; each job runs one cell by --cell. For ResNet-50 on ImageNet, the page has SimCLR's
published table beside the study's. See docs/study.md.
"""

import os
import pathlib
import re
import sys
import tempfile

from absl import flags

from ssl_jax import cli
from ssl_jax import config as configuration
from ssl_jax.errors import IO_ERROR, USAGE, Fault
from ssl_jax.jobs.process_number import process_number
from ssl_jax.rundir import workdir
from ssl_jax.study import grid, study_folder, terminal
from ssl_jax.study.cells import Cell
from ssl_jax.study.runner import Runner
from ssl_jax.study.study_folder import Study

_CONTINUED: list[str] = []  # words that a study without --config reads from its own folder


def main() -> None:
    """Runs the verb that the module's docstring describes."""
    values = flags.FLAGS
    if workdir.is_remote(values.workdir):
        raise Fault(f"--workdir={values.workdir}: pass a local or mounted folder", USAGE)
    modes = [values["print"].value, values.gather, bool(values.jobs), bool(values.cell)]
    if sum(modes) > 1:
        raise Fault("--print, --gather, --jobs and --cell: pass only one at a time", USAGE)
    path = pathlib.Path(values.workdir).expanduser().absolute()
    config_words = config_arguments(sys.argv[1:])
    config = cli.config(trusted=not _CONTINUED)
    study = study_folder.open_study(path, config, config_words, values.grid)
    check_modules(study, values.grid)
    if values["print"].value:
        cells = select_cells(study, values.grid)
        sizes = terminal.data_sizes(study, cells, strict=False)
        print(terminal.list_cells(study, cells, sizes))
    elif values.gather:
        write_page(study)
    elif values.cell:
        run_one_cell(study, values.cell)
    elif values.jobs:
        write_jobs(study, select_cells(study, values.grid), values.jobs)
    else:
        run_cells(study, select_cells(study, values.grid))


def check_modules(study: Study, text: str) -> None:
    """Checks that the user allowed all modules that the cells name.

    The study's own grids may come from anybody. A cell's training could not tell: it gets the
    fields of its cell as flags.

    Args:
      study: the study.
      text: grid of the command line, which allows its modules; may be empty.

    Raises:
      Fault: a module is not allowed.
    """
    for cell in select_cells(study, text) if text else []:
        configuration.allow_modules(cell.config)
    for cell in study.cells:
        configuration.check_modules(cell.config)


def config_arguments(arguments: list[str]) -> list[str]:
    """Selects the words of a command line that set the config, each as --name=value."""
    words = []
    for i, word in enumerate(arguments):
        if re.match(r"--?config(\.|=|$)", word):
            value_follows = "=" not in word and i + 1 < len(arguments)
            words.append(f"{word}={arguments[i + 1]}" if value_follows else word)
    return words


def select_cells(study: Study, text: str) -> list[Cell]:
    """Returns the cells of the grid `text`; all cells if the text is empty."""
    if not text:
        return study.cells
    parsed, _ = grid.parse(text, study.config)
    names = {grid.cell_name(setting) for setting in grid.settings(parsed)}
    names |= {cell.same_as for cell in study.cells if cell.name in names}
    return [cell for cell in study.cells if cell.name in names]


def run_cells(study: Study, cells: list[Cell]) -> None:
    """Runs the cells one after another, writes the page, and raises Fault if a cell failed."""
    sizes = terminal.data_sizes(study, cells, strict=True)
    print(terminal.list_cells(study, cells, sizes), flush=True)
    with workdir.open_workdir(study.path), tempfile.TemporaryDirectory() as cache:
        study_folder.save(study)
        with Runner(study, cache) as runner:
            failed = runner.run_all(cells, lambda line: print(line, flush=True))
    write_page(study)
    if failed:
        # Exit code 0 means that the training ended normally but files are missing.
        code = study.record(failed[0])["exit"] or IO_ERROR
        raise Fault(terminal.failures(study, failed), code)


def run_one_cell(study: Study, number: str) -> None:
    """Runs one cell as a process of a cluster job; exits with the training's exit code."""
    cell = numbered_cell(study, number)
    cell = next((c for c in study.cells if c.name == cell.same_as), cell)
    if study_folder.status(study, cell) in ("done", "diverged"):
        print(f"{cell.name}: {study_folder.status(study, cell)}")
        return
    with Runner(study) as runner:
        sys.exit(runner.run(cell, write=process_number(os.environ) == 0, show=True))


def numbered_cell(study: Study, number: str) -> Cell:
    """Returns the cell that --cell names; raises Fault if there is none."""
    text = os.environ.get("SLURM_ARRAY_TASK_ID", "") if number == "slurm" else number
    if not text:
        raise Fault("--cell=slurm: SLURM_ARRAY_TASK_ID is not set; use sbatch --array", USAGE)
    if not text.isdigit() or int(text) >= len(study.cells):
        raise Fault(f"--cell={text}: pass a number from 0 to {len(study.cells) - 1}", USAGE)
    return study.cells[int(text)]


def write_page(study: Study) -> None:
    """Writes study.csv, figures/ and study.html; prints the table."""
    from ssl_jax.study import page

    print(page.write(study), flush=True)


def write_jobs(study: Study, cells: list[Cell], kind: str) -> None:
    """Writes jobs/ and prints the commands that submit them."""
    from ssl_jax.study import cluster_jobs

    values = flags.FLAGS
    with workdir.open_workdir(study.path):
        study_folder.save(study)
        template_values = values["values"].value or []
        print(cluster_jobs.write(study, cells, kind, template_values, values.job_workdir))


if __name__ == "__main__":
    cli.define_config()
    cli.define_workdir()
    flags.DEFINE_string("grid", "", "Grid of cells: KEY=VALUE,VALUE;KEY=VALUE,...")
    flags.DEFINE_boolean("print", False, "Show the cells; run nothing.")
    flags.DEFINE_boolean("gather", False, "Write table and page from existing runs; run nothing.")
    flags.DEFINE_enum("jobs", None, ["slurm", "gke", "skypilot"], "Write jobs; run nothing.")
    flags.DEFINE_list(
        "values",
        [],
        "With --jobs: NAME=VALUE of the template, or DEVICES:NAME=VALUE for some cells.",
    )
    flags.DEFINE_string("job_workdir", "", "With --jobs: path of the study inside the jobs.")
    flags.DEFINE_string(
        "cell", "", "Number of the single cell to run; slurm: number of the array task."
    )
    words = sys.argv[1:]
    if not config_arguments(words):
        for word in words:
            if match := re.match(r"--?workdir=(.+)", word):
                path = pathlib.Path(match[1]).expanduser().absolute()
                try:
                    _CONTINUED = study_folder.saved_arguments(path)
                except Fault as fault:
                    cli.stop_with(str(fault), fault.code)
                sys.argv += _CONTINUED
    cli.run(main)
