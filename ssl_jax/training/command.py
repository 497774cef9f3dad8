"""Code that the training verbs share: flags, workdir, config, mesh."""

import contextlib
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from ssl_jax import cli
from ssl_jax import config as configuration
from ssl_jax.errors import BAD_CONFIG, USAGE, Fault
from ssl_jax.jobs.stop import Stop
from ssl_jax.rundir import workdir

# JAX and TensorFlow are imported inside functions: their import takes seconds, and mistakes in the
# config must be reported before it.

Train = Callable[[ConfigDict, workdir.Workdir, Stop], None]


def define_flags() -> None:
    """Defines --workdir, --allow_change and the flags of a job of several processes."""
    cli.define_workdir()
    cli.define_processes()
    flags.DEFINE_list(
        "allow_change", [], "Schedule fields that may change on resuming, for example optim.lr."
    )


def run_in_workdir(train: Train, make_config: Callable[[Stop], ConfigDict]) -> None:
    """Opens the workdir of --workdir, compares the configs, and calls `train`.

    Only process 0 opens and locks the workdir; every process must see the same folder.

    Args:
      train: (config, workdir, stop) -> None.
      make_config: stop -> the config of the command line. If it uses JAX, it must call `cli.start`
        first.

    Raises:
      Fault: the workdir is remote, in use, not writable, or holds a run with another config.
    """
    path = flags.FLAGS.workdir
    if workdir.is_remote(path):
        raise Fault(f"--workdir={path}: give a local or mounted folder", USAGE)
    with Stop(ignore_signals_after=True) as stop, contextlib.ExitStack() as stack:
        config = make_config(stop)
        cli.start(stop)
        from ssl_jax.jobs import bootstrap

        use_cores(config)
        bootstrap.print_devices()

        def open_workdir() -> None:
            run = stack.enter_context(workdir.open_workdir(path))
            check_config(config, run, flags.FLAGS.allow_change)

        bootstrap.run_on_process_0(open_workdir)
        run = workdir.Workdir(workdir.absolute(path))
        bootstrap.check_shared_folder(run.path)
        train(config, run, stop)


def check_config(config: ConfigDict, run: workdir.Workdir, allowed: list[str]) -> None:
    """Compares the config with the config of the run in the workdir.

    Args:
      config: the config of the command line.
      run: the workdir; a workdir without a run accepts every config.
      allowed: fields of the schedule that may differ.

    Raises:
      Fault: a field of the run's identity differs, or a field of the schedule that is not in
        `allowed`.
    """
    old = run.read_json("config.json")
    if old is None:
        return
    changes = configuration.changes(old, config)
    scheduled = [line.split(":")[0] for line in changes["schedule"]]
    refused = changes["identity"] + [
        line for line in changes["schedule"] if line.split(":")[0] not in allowed
    ]
    if refused:
        advice = "use another --workdir"
        if not changes["identity"]:
            advice += f", or --allow_change={','.join(scheduled)}"
        message = f"{run.path} holds a run with another config:\n  "
        raise Fault(message + "\n  ".join(refused) + "\n" + advice, BAD_CONFIG)


def make_mesh(config: ConfigDict) -> Any:
    """Makes the mesh over all devices.

    Raises:
      Fault: the batch cannot be divided over the devices.
    """
    from ssl_jax import components, parallel

    use_cores(config)
    mesh = parallel.make_mesh(fsdp=config.parallel.fsdp)
    parallel.check_batch(config.train.batch_size, mesh.size, **components.batch_sizes(config))
    return mesh


def use_cores(config: ConfigDict) -> None:
    """On a CPU, makes JAX use several cores as devices, as many as the batch size allows.

    Call it before JAX initialises its devices.
    """
    from ssl_jax import components, parallel

    parallel.use_cpu_cores_as_devices(config.train.batch_size, **components.batch_sizes(config))
