"""Code that the training verbs share: flags, workdir, config, mesh."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from ssl_jax import cli
from ssl_jax import config as configuration
from ssl_jax.errors import BAD_CONFIG, USAGE, Fault, Faults
from ssl_jax.jobs import files, json_files
from ssl_jax.jobs.stop import Stop
from ssl_jax.rundir import metrics, workdir

# JAX and TensorFlow are imported inside functions: their import takes seconds, and mistakes in the
# config must be reported before it.

Train = Callable[[ConfigDict, workdir.Workdir, Stop], None]


def define_flags() -> None:
    """Defines --workdir, --allow_change, --show_parameters and the flags of a job."""
    cli.define_workdir()
    cli.define_processes()
    flags.DEFINE_list(
        "allow_change", [], "Schedule fields that may change on resuming, for example optim.lr."
    )
    flags.DEFINE_bool("show_parameters", False, "Print a table of all parameters at the start.")


def run_in_workdir(train: Train, make_config: Callable[[Stop], tuple[ConfigDict, str]]) -> None:
    """Opens the workdir of --workdir, compares the configs, and calls `train`.

    Only process 0 opens and locks the workdir; every process must see the same folder and train
    the same config with the same code.

    Args:
      train: (config, workdir, stop) -> None.
      make_config: stop -> (the config of the command line, adapted to the data, and a line that
        names the adapted fields or ""). If it uses JAX's devices, it must call `cli.start` first.

    Raises:
      Fault: the processes of the job differ; the workdir is remote, in use, not writable, or holds
        a run with another config.
    """
    path = flags.FLAGS.workdir
    if workdir.is_remote(path):
        raise Fault(f"--workdir={path}: give a local or mounted folder", USAGE)
    with Stop(ignore_signals_after=True) as stop, contextlib.ExitStack() as stack:
        config, adapted = make_config(stop)
        cli.start(stop)
        from ssl_jax.jobs import bootstrap
        from ssl_jax.rundir import identity

        identity.require_same_command(config)
        use_cores(config)
        bootstrap.print_devices()
        if adapted:
            bootstrap.print_once(adapted)

        def open_workdir() -> None:
            new = not os.path.exists(workdir.absolute(path))
            run = stack.enter_context(workdir.open_workdir(path))
            files.remove_stale(run.path)
            if new:
                stack.callback(remove_unused, run)
            check_config(config, run, flags.FLAGS.allow_change, adapted=adapted)

        bootstrap.run_on_process_0(open_workdir)
        run = workdir.Workdir(workdir.absolute(path))
        bootstrap.check_shared_folder(run.path)
        train(config, run, stop)


def remove_unused(run: workdir.Workdir) -> None:
    """Removes a workdir in which a command left nothing but its lock."""
    # NFS keeps an open file, here the lock, under another name until it is closed.
    with contextlib.suppress(OSError):
        if [file.name for file in run.path.iterdir()] == [".lock"]:
            run.path.rmtree()


def check_config(
    config: ConfigDict, run: workdir.Workdir, allowed: list[str], *, adapted: str = ""
) -> None:
    """Compares the config with the config of the run in the workdir.

    Args:
      config: the config of the command line.
      run: the workdir; a workdir without a run accepts every config.
      allowed: fields of the schedule that may differ.
      adapted: line that names the fields that were set from the data; "" if there are none.

    Raises:
      Fault: a field of the run's identity differs, or a field of the schedule that is not in
        `allowed`.
    """
    # If the file is damaged, the checkpoints still refuse another identity.
    old = json_files.read_or_ignore(run.path / "config.json")
    if not old or not _has_trained(run):
        return
    changes = configuration.changes(old, config)
    scheduled = [line.split(":")[0] for line in changes["schedule"]]
    refused = changes["identity"] + [
        line for line in changes["schedule"] if line.split(":")[0] not in allowed
    ]
    if refused:
        if changes["identity"]:
            own = f"--config={run.path}/config.json"
            advice = f"use another --workdir, or {own} for the run's own config"
        else:
            advice = f"use --allow_change={','.join(scheduled)}, or another --workdir"
        if any(f" {line.split(':')[0]}=" in adapted for line in refused):
            advice = f"the number of images sets some of these: restore the data, or {advice}"
        message = f"{run.path} holds a run with another config:\n  "
        raise Fault(message + "\n  ".join(refused) + "\n" + advice, BAD_CONFIG)


def _has_trained(run: workdir.Workdir) -> bool:
    """Returns whether an earlier attempt logged a step or began to save one."""
    log, checkpoints = run.path / metrics.FILE, run.path / "checkpoints"
    if log.exists() and os.path.getsize(log):
        return True
    is_empty = os.path.isdir(checkpoints) and not os.listdir(checkpoints)
    return os.path.lexists(checkpoints) and not is_empty


def print_start(config: ConfigDict, parts: Any, *, table: bool) -> None:
    """Prints one line that says what will run, and the table of parameters if `table`."""
    import jax

    from ssl_jax import components
    from ssl_jax.training import log

    if jax.process_index() == 0:
        print(log.start_line(config, parts), flush=True)
        if table:
            print(components.parameter_table(config, parts.abstract_state.params), flush=True)


def report(run: workdir.Workdir, problems: list[Fault], warnings: list[str]) -> None:
    """Refuses to start a run that has problems, and prints warnings.

    A run that an older version started may go on: its problems are warnings.

    Raises:
      Fault: a new run has problems; the message names all of them.
    """
    from ssl_jax.jobs import bootstrap

    if not _has_trained(run):
        faults = Faults()
        faults.found += problems
        faults.check()
    for text in [*map(str, problems), *warnings]:
        bootstrap.print_once(f"warning: {text}")


def make_mesh(config: ConfigDict) -> Any:
    """Makes the mesh over all devices.

    Raises:
      Fault: parallel.fsdp does not divide the number of devices.
    """
    from ssl_jax import parallel

    use_cores(config)
    return parallel.make_mesh(fsdp=config.parallel.fsdp)


def use_cores(config: ConfigDict) -> None:
    """On a CPU, makes JAX use several cores as devices, as many as the batch size allows.

    Call it before JAX initialises its devices.
    """
    from ssl_jax import components, parallel

    parallel.use_cpu_cores_as_devices(config.train.batch_size, **components.batch_sizes(config))
