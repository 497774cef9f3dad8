"""Builds a plan from a config, its compiled step and the measured input pipeline; writes it."""

import json
import pathlib

from ml_collections import ConfigDict

from ssl_jax import components
from ssl_jax.data import pipeline
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.jobs import files
from ssl_jax.parallel import sizes
from ssl_jax.parallel.sizes import Size
from ssl_jax.plan import collective_time, html_report, input_throughput, roofline, text_report
from ssl_jax.plan.dataset_size import DatasetSize
from ssl_jax.plan.input_throughput import CpuThroughput
from ssl_jax.plan.program import CompiledStep
from ssl_jax.plan.result import Plan, to_plain, verdict
from ssl_jax.plan.run_totals import run_totals
from ssl_jax.plan.topologies import Topology


def check_sizes(config: ConfigDict, topology: Topology) -> tuple[Size, ...]:
    """Returns the sizes of a config that must divide on a topology.

    Raises:
      Fault: a size does not divide; the message names the nearest sizes that do.
    """
    checked = sizes.check(
        batch_size=config.train.batch_size,
        devices=topology.devices,
        hosts=topology.hosts,
        **components.batch_sizes(config),
        queue_size=config.method.get("queue_size", 0),
        fsdp=config.parallel.fsdp,
        slices=topology.slices,
    )
    if problems := sizes.problems(checked):
        message = f"{topology.name} cannot train this config:\n  "
        raise Fault(message + "\n  ".join(problems), BAD_CONFIG)
    return tuple(checked)


def build_plan(
    config: ConfigDict,
    step: CompiledStep,
    size: DatasetSize,
    throughput: CpuThroughput | None,
    command: str,
) -> Plan:
    """Returns the plan of a training on the topology that its step was compiled for.

    Args:
      throughput: throughput of the input pipeline; None if not measured.
      command: command to show in the plan.
    """
    program, train = step.program, config.train
    latency = collective_time.Latency(step.latency, 0.0) if step.latency else None
    forecast = roofline.forecast(program, latency=latency)
    steps = train.steps or pipeline.total_steps(size.images, train.batch_size, train.epochs)
    totals = run_totals(
        steps=steps,
        images=size.images,
        batch_size=train.batch_size,
        step_seconds=forecast.step,
        chips=program.topology.chips,
        checkpoint_bytes=step.state_bytes,
        checkpoint_every=train.checkpoint_every,
        keep=train.keep,
        may_stop_early=bool(train.stop_on),
    )
    placement = config.augment.get("placement", "")
    load = throughput and input_throughput.host_load(
        throughput,
        images_per_second=forecast.images_per_second,
        hosts=program.topology.hosts,
        placement=placement,
        chip=program.topology.chip.name,
    )
    return Plan(
        name=training_name(config),
        command=command,
        forecast=forecast,
        totals=totals,
        sizes=check_sizes(config, program.topology),
        placement=placement,
        speed=throughput,
        need=load,
        checked=step.checked,
        noun=components.make_input(config).noun,
    )


def training_name(config: ConfigDict) -> str:
    """Returns a name such as "simclr resnet50, batch 4,096"."""
    model, train = config.model, config.train
    name = f"{config.method.name} {model.name}"
    if model.get("width", 1.0) != 1.0:
        name += f" x{model.width:g}"
    if model.get("sk_ratio", 0.0):
        name += " SK"
    name += f", batch {train.batch_size:,}"
    return name + (f", micro-batch {train.microbatch:,}" if train.microbatch else "")


def write_plan(plan: Plan, folder: pathlib.Path) -> str:
    """Writes plan.txt, plan.json and plan.html into the folder and returns the text.

    Raises:
      Fault: a file cannot be written.
    """
    text = text_report.format_plan(plan)
    judgement = verdict(plan.program)
    content = {"verdict": judgement.sentence, "exit_code": judgement.code} | to_plain(plan)
    try:
        files.write(folder / "plan.txt", text)
        files.write(folder / "plan.json", json.dumps(content, indent=1))
        files.write(folder / "plan.html", html_report.plan_page(plan))
    except OSError as error:
        raise files.write_fault(f"{folder}: cannot write the plan", error) from error
    return text
