"""What the training verbs share: resume, train, save, stop on a signal."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from ssl_jax import cli
from ssl_jax import config as configuration
from ssl_jax.errors import (
    BAD_CONFIG,
    BAD_DATA,
    NUMERIC,
    USAGE,
    Fault,
)
from ssl_jax.inputs.image.views import split
from ssl_jax.jobs.stop import Stop
from ssl_jax.rundir import workdir

# JAX and TensorFlow are imported inside functions: a mistake in the config must be reported
# before their seconds of import.

Train = Callable[[ConfigDict, workdir.Workdir, Stop], None]


def define_flags() -> None:
    """Declares --workdir and --allow_change, and those of a job of several processes."""
    cli.define_workdir()
    cli.define_processes()
    flags.DEFINE_list(
        "allow_change", [], "Schedule fields that may differ on resuming, e.g. optim.lr."
    )


def open_and(train: Train, make_config: Callable[[Stop], ConfigDict]) -> None:
    """Calls `train` with the flags' workdir, locked and held against the config.

    Of several processes, process 0 alone opens and judges it, and all must see it.

    Args:
      make_config: the config of the command line; calls `cli.start` before it uses JAX, if it does.
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

        def open_it() -> None:
            run = stack.enter_context(workdir.open_workdir(path))
            check_config(config, run, flags.FLAGS.allow_change)

        bootstrap.run_on_process_0(open_it)
        run = workdir.Workdir(workdir.absolute(path))
        bootstrap.check_shared_folder(run.path)
        train(config, run, stop)


def check_config(config: ConfigDict, run: workdir.Workdir, allowed: list[str]) -> None:
    """Holds the config against the one that the workdir's run has.

    Raises:
      Fault: a field differs that makes another run (always), or one of the schedule that
        `allowed` does not name.
    """
    old = run.read_json("config.json")
    if old is None:
        return
    found = configuration.changes(old, config)
    scheduled = [line.split(":")[0] for line in found["schedule"]]
    refused = found["identity"] + [
        line for line in found["schedule"] if line.split(":")[0] not in allowed
    ]
    if refused:
        advice = "use another --workdir"
        if not found["identity"]:
            advice += f", or --allow_change={','.join(scheduled)}"
        message = f"{run.path} holds a run with another config:\n  "
        raise Fault(message + "\n  ".join(refused) + "\n" + advice, BAD_CONFIG)


def make_mesh(config: ConfigDict) -> Any:
    """The mesh over all devices; raises Fault if they cannot divide the batch as asked."""
    from ssl_jax import parallel

    use_cores(config)
    mesh = parallel.make_mesh(fsdp=config.parallel.fsdp)
    parallel.check_batch(config.train.batch_size, mesh.size, **_division(config))
    return mesh


def use_cores(config: ConfigDict) -> None:
    """Makes CPU cores devices, as many as divide the config's batch; before JAX looks for any."""
    from ssl_jax import parallel

    parallel.use_cpu_cores_as_devices(config.train.batch_size, **_division(config))


def _division(config: ConfigDict) -> dict[str, int]:
    from ssl_jax import build

    return {
        "microbatch": config.train.microbatch,
        "bn_group": config.model.bn_group,
        "views": len(split(build.views(config))[0]),  # what BatchNorm's groups count
    }


def fit(
    config: ConfigDict,
    run: workdir.Workdir,
    parts: Any,
    finish: Callable[[Any, bool], None],
    stop: Stop,
    *,
    verb: str,
) -> None:
    """Resumes, trains, evaluates, reports.

    Args:
      parts: `build.Parts`, or what has its source, mesh, total_steps, train_step, abstract_state
        and new_state.
      finish: (state at the end, whether it was trained just now): evaluates it.
      verb: for the record of the command.
    """
    import jax

    from ssl_jax import build
    from ssl_jax.data import pipeline
    from ssl_jax.jobs.watchdog import Watchdog
    from ssl_jax.report import page
    from ssl_jax.rundir import metadata
    from ssl_jax.rundir.checkpoint import Checkpoints

    pipeline.check_size(parts.source, config.train.batch_size)
    first = jax.process_index() == 0  # the one that writes what people read
    data = {"train_images": parts.source.size, "classes": list(parts.source.classes)}
    with (
        Watchdog(run.path, jax.process_index()) as watchdog,
        jax.set_mesh(parts.mesh),
        Checkpoints(
            run.path / "checkpoints",
            config_hash=metadata.config_hash(config),
            keep=config.train.keep,
        ) as checkpoints,
    ):
        stop.set_checkpoints(checkpoints)
        restored = checkpoints.restore_latest(parts.abstract_state)
        state, start, before = restored or (parts.new_state(), 0, data)
        check_data(before, data)
        watchdog.begin(start)
        # Only now: a first attempt that fails before this point binds the workdir to nothing.
        if first:
            run.write_json("config.json", config.to_dict())
            if restored:
                print(f"resumed at step {start} of {parts.total_steps}", flush=True)
            else:
                print(build.parameter_table(config, state.params), flush=True)
        if start < parts.total_steps:
            if first:
                of_run = metadata.collect(config, parts.mesh, parts.source, verb)
                run.write_json("metadata.json", of_run)
                build.draw_views(config, parts.source, run.path / "figures" / "views.png")
            with stop.deferred():
                state = loop(config, run, parts, state, start, checkpoints, stop, watchdog, data)
                watchdog.enter("save")  # a signal in the last step waits for it here
        watchdog.enter("finish")
        try:
            finish(state, start < parts.total_steps)
        finally:
            if first:
                print(f"report: {page.write(run.path)}", flush=True)


def check_data(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises Fault if the data are others than those that the checkpoint was trained on.

    The order of the examples follows from their number.
    """
    for field, value in now.items():
        if before.get(field) != value:
            raise Fault(
                f"the data have changed since the last checkpoint: {field} was "
                f"{before.get(field)}, is {value}; restore the data or use another --workdir",
                BAD_DATA,
            )


def loop(
    config: ConfigDict,
    run: workdir.Workdir,
    parts: Any,
    state: Any,
    start: int,
    checkpoints: Any,
    stop: Stop,
    watchdog: Any,
    data: dict[str, Any],
) -> Any:
    """Trains from step `start` to the end; stops on a signal or a non-finite loss."""
    import jax

    from ssl_jax import build, parallel
    from ssl_jax.rundir.metrics import MetricWriter

    total = parts.total_steps
    batches = build.train_batches(config, parts.source, start_step=start, num_steps=total)
    try:
        with MetricWriter(run.path, resume_step=start, is_main=jax.process_index() == 0) as writer:
            log = Log(config, parts, writer, checkpoints, start)
            for k, batch in enumerate(batches, start + 1):
                state, metrics = parts.train_step(state, parallel.to_global(batch, parts.mesh))
                log.settle()
                log.pending = (k, metrics)
                checkpoints.check()
                watchdog.step(k)
                stopping = stop.should_stop(k)  # asked once: it may change on the next line
                if k % config.train.checkpoint_every == 0 or k == total or stopping:
                    with watchdog.saving():
                        log.settle()
                        checkpoints.save(k, state, data)
                        if stopping:
                            checkpoints.wait()
                            raise stop.fault(f"saved step {k}")
    finally:
        batches.close()
        note_bad_images(run, parts.source, batches.bad)
    return state


def note_bad_images(run: workdir.Workdir, source: Any, bad: dict[int, str]) -> None:
    """Adds what quarantine replaced to bad_images.json, each process in a file of its own."""
    import jax

    if bad:
        process = jax.process_index()
        name = f"bad_images_{process}.json" if process else "bad_images.json"
        known = run.read_json(name) or {}
        known |= {source.describe(index): reason for index, reason in bad.items()}
        run.write_json(name, known)
        print(f"replaced {len(known)} unreadable images: see {run.path / name}")


class Log:
    """Reads metrics one step late, so that the device never waits for the host."""

    def __init__(
        self, config: ConfigDict, parts: Any, writer: Any, checkpoints: Any, start: int
    ) -> None:
        from ssl_jax.rundir.metrics import NoiseScale, Progress
        from ssl_jax.training.collapse import Alarm

        self.every, self.total = config.train.log_every, parts.total_steps
        self.writer, self.checkpoints = writer, checkpoints
        self.progress = Progress(
            total_steps=self.total,
            start_step=start,
            batch_size=config.train.batch_size,
            epoch_size=parts.source.size,
        )
        self.noise_scale = NoiseScale()
        self.alarm = Alarm(total_steps=self.total)
        self.pending: tuple[int, Any] | None = None

    def settle(self) -> None:
        """Looks at the pending step: stops the run if it is not finite, logs it if it is due."""
        import jax

        if self.pending is None:
            return
        (step, arrays), self.pending = self.pending, None
        metrics = {name: float(value) for name, value in jax.device_get(arrays).items()}
        if not (math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"])):
            self.checkpoints.wait()
            good = self.checkpoints.latest_step()
            raise Fault(
                f"loss {metrics['loss']}, gradient norm {metrics['grad_norm']} at step {step}. "
                + (f"The last good checkpoint is step {good}. " if good else "")
                + "The same command meets the same step again: go on with a lower rate by "
                "--allow_change=optim.lr --config.optim.lr=..., or start anew with a longer "
                "optim.warmup_epochs or a higher method.temperature",
                NUMERIC,
            )
        metrics |= self.noise_scale(metrics)
        if step % self.every == 0 or step == self.total:
            line, rates = self.progress(step, metrics)
            self.writer.write(step, metrics | rates)
            warning = self.alarm(step, metrics)
            if jax.process_index() == 0:
                print(line, *[f"warning: {warning}"] * bool(warning), sep="\n", flush=True)
