"""The training loop: resume, train, save, stop on a signal, evaluate, report."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from ml_collections import ConfigDict

from ssl_jax import components, parallel
from ssl_jax.data.source import Source
from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.jobs import bootstrap, files, json_files
from ssl_jax.jobs.stop import Stop
from ssl_jax.jobs.watchdog import Watchdog
from ssl_jax.report import page
from ssl_jax.rundir import facts, history, identity, metadata, workdir
from ssl_jax.rundir.checkpoint import Checkpoints
from ssl_jax.rundir.metrics import MetricWriter
from ssl_jax.training import preview
from ssl_jax.training.early_stop import META, EarlyStop
from ssl_jax.training.finite import FiniteGuard
from ssl_jax.training.log import StepLog, announced, resume_line
from ssl_jax.training.parts import Parts
from ssl_jax.training.state import TrainState

Finish = Callable[[TrainState, bool], None]


def fit(
    config: ConfigDict,
    run: workdir.Workdir,
    parts: Parts,
    finish: Finish,
    stop: Stop,
    *,
    verb: str,
    knn: Callable[[TrainState], float] | None = None,
) -> None:
    """Resumes or starts a run, trains it to its end, evaluates it and writes its report.

    Args:
      config: config of the run.
      run: workdir of the run, locked by this process.
      parts: parts of the run, made by `build`.
      finish: (state at the end, True if this call trained) -> None; evaluates the state.
      stop: reports signals.
      verb: name of the command, for metadata.json.
      knn: state -> accuracy, for early stopping on "knn".

    Raises:
      Fault: the data differ between processes or from those of the checkpoint, the checkpoints
        were lost, the loss or the state is not finite, or a signal stopped the run.
    """
    tests = {"test": parts.test, "unlabelled test": parts.unlabelled_test}
    identity.require_same_data(train=parts.source, **tests)
    first = jax.process_index() == 0  # the process that writes files for people
    data = {
        "label": parts.source.label_field,
        "train_images": parts.source.size,
        "classes": list(parts.source.classes),
    }
    if data_hash := parts.source.identity():
        data["files"] = data_hash
    if facts_hash := facts.digest(parts.source.facts):
        data["facts"] = facts_hash
    with (
        Watchdog(run.path, jax.process_index(), factor=config.train.watchdog) as watchdog,
        jax.set_mesh(parts.mesh),
        Checkpoints(
            run.path / "checkpoints",
            config_hash=metadata.config_hash(config),
            keep=config.train.keep,
        ) as checkpoints,
    ):
        stop.set_checkpoints(checkpoints)
        restored = checkpoints.restore_latest(parts.abstract_state)
        if restored is None:
            every = config.train.checkpoint_every
            bootstrap.run_on_process_0(lambda: history.start_anew(run, every))
        state, start, before = restored or (parts.new_state(), 0, data)
        later = {name: data[name] for name in ("label", "files", "facts") if name in data}
        check_data(later | before, data)  # older checkpoints name neither label nor files
        fields, saved = config.train, before.get(META)
        early = EarlyStop(fields.stop_on, fields.stop_every, fields.stop_patience, saved, knn)
        watchdog.begin(start)
        # Not earlier: if a first attempt fails before this point, the workdir has no config yet.
        if first:
            run.write_json("config.json", config.to_dict())
            facts.write(run.path, parts.source.facts)
            if restored:
                print(resume_line(start, parts.total_steps), flush=True)
        unfinished = start < parts.total_steps and not early.stopped
        if unfinished:
            if first:
                content = metadata.collect(config, parts.mesh, parts.source, verb)
                run.write_json("metadata.json", content | {"noun": parts.input.noun})
                if parts.input.preview:
                    figures = files.inside(run.path, "figures")
                    preview.draw_views(config, parts.source, figures / "views.png")
            with stop.deferred():
                state = train(
                    config, run, parts, state, start, checkpoints, stop, watchdog, early, data
                )
                watchdog.enter("save")  # a signal in the last step waits for it here
                checkpoints.wait()  # a full disk is reported before a long evaluation
        watchdog.enter("finish")
        if first and early.stopped and int(state.step) < parts.total_steps:
            note_early_stop(run, early, int(state.step), parts.total_steps)
        try:
            finish(state, unfinished)
        except Exception:
            with contextlib.suppress(Exception):  # a full disk also refuses the report
                report(run)
            raise
        report(run)


def report(run: workdir.Workdir) -> None:
    """Writes the report of a run, in process 0."""
    if jax.process_index() == 0:
        print(f"report: {page.write(run.path)}", flush=True)


def note_early_stop(run: workdir.Workdir, early: EarlyStop, step: int, total: int) -> None:
    """Prints why the run ended after `step` of `total` steps, and adds it to metadata.json."""
    reason = early.reason(step, total)
    advice = "To train on: --config.train.stop_on='' --allow_change=train.stop_on"
    print(f"{reason}. {advice}", flush=True)
    content = run.read_json("metadata.json") or {}
    run.write_json("metadata.json", content | {"stopped_early": {"step": step, "reason": reason}})


def check_data(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Compares the data with the data of the last checkpoint.

    Raises:
      Fault: number of examples, classes, label or files differ. The order of the examples depends
        on their number.
    """
    for field, value in now.items():
        if (old := before.get(field)) != value:
            change = f"{field} was {old}, is {value}"
            advice = "Restore the data or use another --workdir."
            if field == "label":
                advice = "To evaluate by another label, run evaluate --data.label=NAME."
            if field == "files":
                hashes = f"their hash was {str(old)[:12]}, is {value[:12]}"
                change = f"names or sizes of files differ ({hashes})"
            if field == "facts":
                change = "what the run made of them, such as a tokenizer or a vocabulary, differs"
            raise Fault(
                f"the data have changed since the last checkpoint: {change}. {advice}", BAD_DATA
            )


def train(
    config: ConfigDict,
    run: workdir.Workdir,
    parts: Parts,
    state: TrainState,
    start: int,
    checkpoints: Checkpoints,
    stop: Stop,
    watchdog: Watchdog,
    early: EarlyStop,
    data: dict[str, Any],
) -> TrainState:
    """Trains from step `start` to the end and returns the last state.

    Args:
      config: config of the run.
      run: workdir of the run.
      parts: parts of the run.
      state: state after step `start`.
      start: number of steps that are done.
      checkpoints: writes checkpoints.
      stop: reports signals.
      watchdog: is told of every step.
      early: decides whether the run ends before its last step.
      data: description of the data, stored in every checkpoint.

    Raises:
      Fault: a signal stopped the run after its state was saved, or the loss or the state is not
        finite.
    """
    total, train_step = parts.total_steps, announced(parts.train_step)
    batches = components.train_batches(
        config, parts.source, start_step=start, num_steps=total, example_input=parts.input
    )
    try:
        with MetricWriter(run.path, resume_step=start, is_main=jax.process_index() == 0) as writer:
            guard = FiniteGuard(run, parts, checkpoints)

            def check(step: int, metrics: dict[str, float]) -> None:
                guard.check_metrics(step, metrics)
                early.add(metrics)

            log = StepLog(config, parts, writer, check, start)
            for k, batch in enumerate(batches, start + 1):
                state, metrics = train_step(state, parallel.to_global(batch, parts.mesh))
                guard.add(k, batch["index"], state)
                log.add(k, metrics)
                checkpoints.check()
                watchdog.step(k)
                if early.is_due(k):
                    with watchdog.within("evaluate"):
                        log.settle(partial(early.evaluate, k, state))
                    if jax.process_index() == 0:
                        print(early.describe(), flush=True)
                last = k == total or early.stopped
                stopping = stop.should_stop(k)  # called once, because the answer may change
                if k % config.train.checkpoint_every == 0 or last or stopping:
                    with watchdog.saving():
                        log.settle()
                        guard.check_state(k)
                        checkpoints.save(k, state, data | early.meta)
                        if stopping:
                            checkpoints.wait()
                            raise stop.fault(f"saved step {k}")
                if last:
                    break
    finally:
        batches.close()
        note_bad_examples(run, parts.source, batches.bad)
    return state


def note_bad_examples(run: workdir.Workdir, source: Source, bad: dict[int, str]) -> None:
    """Adds the examples that quarantine replaced to bad_images.json, one file per process."""
    if bad:
        process = jax.process_index()
        name = f"bad_images_{process}.json" if process else "bad_images.json"
        replaced = json_files.read_or_ignore(run.path / name)
        replaced |= {source.describe(index): reason for index, reason in bad.items()}
        run.write_json(name, replaced)
        print(f"replaced {len(replaced)} unreadable examples: see {run.path / name}")
