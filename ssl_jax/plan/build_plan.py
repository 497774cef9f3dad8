"""From a config, its compiled step and the measured input to a plan."""

import json
import pathlib

from ml_collections import ConfigDict

from ssl_jax.data import pipeline
from ssl_jax.errors import BAD_CONFIG, CANNOT_CREATE, Fault
from ssl_jax.parallel import sizes as parallel_sizes
from ssl_jax.parallel.sizes import Size
from ssl_jax.plan import (
    collective_time,
    html_report,
    input_throughput,
    result,
    roofline,
    run_totals,
    text_report,
)
from ssl_jax.plan.compile_in_subprocess import Compiled
from ssl_jax.plan.compiled import Compiled
from ssl_jax.plan.counts import Counts
from ssl_jax.plan.dataset_size import Counts
from ssl_jax.plan.facts import Topology
from ssl_jax.plan.input_throughput import Speed
from ssl_jax.plan.inputs import Speed
from ssl_jax.plan.program import Topology
from ssl_jax.plan.record import Plan
from ssl_jax.plan.result import Plan


def sizes(config: ConfigDict, topology: Topology) -> tuple[Size, ...]:
    """The sizes of a config that must divide; raises Fault with the nearest where one does not."""
    found = parallel_sizes.check(
        batch_size=config.train.batch_size,
        devices=topology.devices,
        hosts=topology.hosts,
        microbatch=config.train.microbatch,
        bn_group=config.model.bn_group,
        views=config.augment.views,
        queue_size=config.method.get("queue_size", 0),
        fsdp=config.parallel.fsdp,
        slices=topology.slices,
    )
    if wrong := parallel_sizes.problems(found):
        message = f"{topology.name} cannot train this config:\n  "
        raise Fault(message + "\n  ".join(wrong), BAD_CONFIG)
    return tuple(found)


def plan(
    config: ConfigDict, compiled: Compiled, counts: Counts, speed: Speed | None, command: str
) -> Plan:
    """All that is told of a training on a topology."""
    program, train = compiled.program, config.train
    latency = collective_time.Latency(compiled.latency, 0.0) if compiled.latency else None
    forecast = roofline.forecast(program, latency=latency)
    steps = train.steps or pipeline.total_steps(counts.images, train.batch_size, train.epochs)
    total = run_totals.run(
        steps=steps,
        images=counts.images,
        batch_size=train.batch_size,
        step_seconds=forecast.step,
        chips=program.topology.chips,
        checkpoint_bytes=compiled.state_bytes,
        checkpoint_every=train.checkpoint_every,
        keep=train.keep,
    )
    need = speed and input_throughput.need(
        speed,
        images_per_second=forecast.images_per_second,
        hosts=program.topology.hosts,
        placement=config.augment.placement,
        chip=program.topology.chip.name,
    )
    return Plan(
        name=name(config),
        command=command,
        forecast=forecast,
        totals=total,
        sizes=sizes(config, program.topology),
        placement=config.augment.placement,
        speed=speed,
        need=need,
        checked=compiled.checked,
    )


def name(config: ConfigDict) -> str:
    """ "simclr resnet50, batch 4,096"."""
    model, train = config.model, config.train
    found = f"{config.method.name} {model.name}"
    if model.get("width", 1.0) != 1.0:
        found += f" x{model.width:g}"
    if model.get("sk_ratio", 0.0):
        found += " SK"
    found += f", batch {train.batch_size:,}"
    return found + (f", micro-batch {train.microbatch:,}" if train.microbatch else "")


def write(plan: Plan, folder: pathlib.Path) -> str:
    """Writes plan.txt, plan.json and plan.html into the folder; returns the text.

    Raises:
      Fault: they cannot be written.
    """
    lines = text_report.text(plan)
    found = result.verdict(plan.program)
    content = {"verdict": found.sentence, "exit_code": found.code} | result.plain(plan)
    try:
        (folder / "plan.txt").write_text(lines, encoding="utf-8")
        (folder / "plan.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        (folder / "plan.html").write_text(html_report.page(plan), encoding="utf-8")
    except OSError as error:
        raise Fault(f"{folder}: cannot write the plan ({error})", CANNOT_CREATE) from error
    return lines
