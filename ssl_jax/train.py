"""Pre-train by self-supervision: the config names the method, the data and the recipe.

    python -m ssl_jax.train --config=configs/simclr.py:digits --workdir=runs/digits

The same command again resumes, bit for bit. At the end the features are evaluated and
`WORKDIR/report.html` is written.
"""

import math
import signal
import sys
from typing import Any, ClassVar

from absl import flags
from ml_collections import ConfigDict

from ssl_jax import cli, workdir
from ssl_jax import config as configuration
from ssl_jax.errors import (
    BAD_CONFIG,
    INTERRUPTED,
    NUMERIC,
    STOPPED_EARLY,
    Fault,
)

# JAX and TensorFlow are imported inside functions: a mistake in the config must be reported
# before their seconds of import.


def main() -> None:
    """The verb: see the module's docstring."""
    config = cli.config()
    with workdir.open_workdir(flags.FLAGS.workdir) as run:
        settle_config(config, run, flags.FLAGS.allow_change)
        train(config, run)


def settle_config(config: ConfigDict, run: workdir.Workdir, allowed: list[str]) -> None:
    """Writes config.json, or holds the config against the one that the workdir began with.

    Raises:
      Fault: a field differs that makes another run (always), or one of the schedule that
        `allowed` does not name.
    """
    old = run.read_json("config.json")
    if old is not None:
        found = configuration.changes(old, config)
        refused = found["identity"] + [
            line for line in found["schedule"] if line.split(":")[0] not in allowed
        ]
        if refused:
            raise Fault(
                f"{run.path} holds a run with another config:\n  "
                + "\n  ".join(refused)
                + "\nuse another --workdir"
                + (
                    ""
                    if found["identity"]
                    else ", or --allow_change="
                    + ",".join(line.split(":")[0] for line in found["schedule"])
                ),
                BAD_CONFIG,
            )
    run.write_json("config.json", config.to_dict())


def train(config: ConfigDict, run: workdir.Workdir) -> None:
    """Builds the parts, resumes, trains, evaluates, reports."""
    import jax

    from ssl_jax import assess, build, metadata, parallel
    from ssl_jax.checkpoint import Checkpoints
    from ssl_jax.report import page

    mesh = parallel.make_mesh()
    parts = build.parts(config, mesh)
    is_main = jax.process_index() == 0
    with (
        jax.set_mesh(mesh),
        Checkpoints(
            run.path / "checkpoints",
            config_hash=metadata.config_hash(config),
            keep=config.train.keep,
        ) as checkpoints,
    ):
        restored = checkpoints.restore_latest(parts.abstract_state)
        state, start, _ = restored or (parts.new_state(), 0, {})
        if is_main:
            print(
                f"resumed at step {start} of {parts.total_steps}"
                if restored
                else build.parameter_table(config, state.params),
                flush=True,
            )
        if start < parts.total_steps:
            if is_main:
                run.write_json("metadata.json", metadata.collect(config, mesh, parts.source))
                build.draw_views(config, parts.source, run.path / "figures" / "views.png")
            state = loop(config, run, parts, state, start, checkpoints)
        assess.evaluate(config, parts, state, run.path)
    if is_main:
        print(f"report: {page.write(run.path)}", flush=True)


def loop(
    config: ConfigDict, run: workdir.Workdir, parts: Any, state: Any, start: int, checkpoints: Any
) -> Any:
    """Trains from step `start` to the end; stops on a signal or a non-finite loss."""
    import jax

    from ssl_jax import build, parallel
    from ssl_jax.metrics import MetricWriter

    total = parts.total_steps
    batches = build.train_batches(config, parts.source, start_step=start, num_steps=total)
    is_main = jax.process_index() == 0
    with Stop() as stop, MetricWriter(run.path, resume_step=start, is_main=is_main) as writer:
        log = Log(config, parts, writer, checkpoints, start)
        for k, batch in enumerate(batches, start + 1):
            state, metrics = parts.train_step(state, parallel.to_global(batch, parts.mesh))
            log.settle()
            log.pending = (k, metrics)
            checkpoints.check()
            if k % config.train.checkpoint_every == 0 or k == total or stop.code:
                log.settle()
                checkpoints.save(k, state, {"images": k * config.train.batch_size})
            if stop.code:
                checkpoints.wait()
                batches.close()
                raise Fault(f"{stop.name}: saved step {k}; run the same command again", stop.code)
    if batches.bad:
        names = {parts.source.describe(i): reason for i, reason in sorted(batches.bad.items())}
        run.write_json("bad_images.json", names)
        print(f"replaced {len(names)} unreadable images: see {run.path}/bad_images.json")
    return state


class Log:
    """Reads metrics one step late, so that the device never waits for the host."""

    def __init__(
        self, config: ConfigDict, parts: Any, writer: Any, checkpoints: Any, start: int
    ) -> None:
        from ssl_jax.metrics import Progress

        self.every, self.total = config.train.log_every, parts.total_steps
        self.writer, self.checkpoints = writer, checkpoints
        self.progress = Progress(
            total_steps=self.total,
            start_step=start,
            batch_size=config.train.batch_size,
            epoch_size=parts.source.size,
        )
        self.pending: tuple[int, Any] | None = None

    def settle(self) -> None:
        """Looks at the pending step: stops the run if it is not finite, logs it if it is due."""
        import jax

        if self.pending is None:
            return
        (step, arrays), self.pending = self.pending, None
        metrics = {name: float(value) for name, value in jax.device_get(arrays).items()}
        if not (math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"])):
            good = self.checkpoints.latest_step()
            raise Fault(
                f"loss {metrics['loss']}, gradient norm {metrics['grad_norm']} at step {step}. "
                + (f"The last good checkpoint is step {good}. " if good else "")
                + "Try a lower optim.lr, more optim.warmup_epochs or a higher method.temperature",
                NUMERIC,
            )
        if step % self.every == 0 or step == self.total:
            line, rates = self.progress(step, metrics)
            self.writer.write(step, metrics | rates)
            if jax.process_index() == 0:
                print(line, flush=True)


class Stop:
    """Turns SIGTERM and SIGINT into a request that the loop answers at the next step."""

    CODES: ClassVar = {signal.SIGTERM: STOPPED_EARLY, signal.SIGINT: INTERRUPTED}

    def __init__(self) -> None:
        self.code = 0
        self.name = ""

    def _request(self, number: int, _: Any) -> None:
        if self.code:
            print("saving; this signal is ignored", file=sys.stderr, flush=True)
            return
        self.code = self.CODES[signal.Signals(number)]
        self.name = signal.Signals(number).name

    def __enter__(self) -> "Stop":
        import jax

        # With several processes SIGTERM belongs to jax.distributed's preemption notice.
        alone = jax.process_count() == 1
        self._old = {s: signal.signal(s, self._request) for s in self.CODES if alone}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    cli.define_config()
    cli.define_workdir()
    flags.DEFINE_list(
        "allow_change", [], "Schedule fields that may differ on resuming, e.g. optim.lr."
    )
    cli.run(main)
