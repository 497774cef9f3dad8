"""Plan a training for devices that you do not have yet: memory, step time, chip-hours.

    ssl-jax plan --config=simclr:imagenet --topology=v5e:16x16
    ssl-jax plan --config=simclr:imagenet --topology=h100:8x4
    ssl-jax plan --config=simclr:imagenet --sweep \\
        --topology=v5e:8x8,v5e:16x16,v4:4x4x4 --batches=4096,8192 --output=plans/sweep
    ssl-jax plan --config=simclr:digits --topology=cpu:8 --check

Compiles the training step for the topology and prints memory, time and cost. The chips are not
needed. OUTPUT/plan.html, plan.txt and plan.json hold the same numbers. Exits with code 82 if the
step does not fit, and with code 83 if devices repeat work that they should divide. TPU topologies
need `pip install libtpu`.
"""

import importlib.util
import json
import pathlib
import shlex
import sys

from absl import flags
from ml_collections import ConfigDict

from ssl_jax import cli
from ssl_jax import config as configuration
from ssl_jax.errors import MISSING_INPUT, USAGE, Fault
from ssl_jax.jobs import files
from ssl_jax.plan import input_throughput, sweep, topologies
from ssl_jax.plan.build_plan import build_plan, check_sizes, training_name, write_plan
from ssl_jax.plan.compile_in_subprocess import compile_cached
from ssl_jax.plan.dataset_size import DatasetSize, dataset_size
from ssl_jax.plan.input_throughput import CpuThroughput
from ssl_jax.plan.result import Plan, to_plain, verdict
from ssl_jax.plan.topologies import Topology
from ssl_jax.rundir import workdir

SWEEP_FLAGS = ("batches", "microbatches", "fsdp")


def main() -> None:
    """Runs the command; see the module's docstring."""
    config, places = cli.config(), _topologies()
    given, prices = flags.FLAGS, _prices()
    data = config.data
    if not given.sweep and not configuration.auto_fields(config):
        check_sizes(config, places[0])
    size = dataset_size(
        data.source, data_dir=data.dir, split=data.split, label=data.label, holdout=data.holdout,
        images=given.images, classes=given.classes, **configuration.source_options(data),
    )  # fmt: skip
    config, _ = configuration.adapt(config, configuration.DataFacts(size.images, size.classes, 0))
    with workdir.open_workdir(given.output, "output") as output:
        folder = pathlib.Path(output.path)
        if given.sweep:
            _sweep(config, places, size, prices, folder)
        else:
            _plan_one(config, places[0], size, folder)


def _topologies() -> list[Topology]:
    """Returns the topologies of --topology; raises Fault if flags contradict each other."""
    given = flags.FLAGS
    sweep_flags = [name for name in (*SWEEP_FLAGS, "price") if given[name].value]
    if sweep_flags and not given.sweep:
        raise Fault(f"--{sweep_flags[0]} needs a sweep; add --sweep", USAGE)
    if len(given.topology) != 1 and not given.sweep:
        raise Fault("pass one --topology, or add --sweep to compare several", USAGE)
    if given.check and given.sweep:
        raise Fault("--check runs one topology; remove --sweep", USAGE)
    places = [topologies.parse(name, slices=given.slices) for name in given.topology]
    if any(p.chip.kind != "cpu" for p in places) and not importlib.util.find_spec("libtpu"):
        message = "planning for TPUs and GPUs compiles with libtpu, which is not installed"
        raise Fault(f"{message}. Run pip install libtpu", MISSING_INPUT)
    return places


def _prices() -> dict[str, float]:
    """Returns the prices per chip-hour of --price=v5e=1.2,v4=3.2."""
    prices = {}
    for part in flags.FLAGS["price"].value or ():
        chip, _, number = part.partition("=")
        try:
            prices[chip] = float(number)
        except ValueError:
            message = f"--price: {part!r} is not CHIP=NUMBER, for example v5e=1.2"
            raise Fault(message, USAGE) from None
    chips = {name.split(":")[0] for name in flags.FLAGS.topology}
    if prices and (missing := chips - prices.keys()):
        raise Fault(f"--price lacks {', '.join(sorted(missing))}", USAGE)
    return prices


def _plan_one(
    config: ConfigDict, topology: Topology, size: DatasetSize, folder: pathlib.Path
) -> None:
    duration = "takes minutes for TPUs, unless it was compiled before"
    print(f"compiling for {topology.name} ({duration})", flush=True)
    step = compile_cached(config, topology, size, folder, check=flags.FLAGS.check)
    plan = build_plan(config, step, size, _throughput(config, size, folder), _command())
    print(write_plan(plan, folder))
    print(f"page: {folder / 'plan.html'}", flush=True)
    judgement = verdict(plan.program)
    if judgement.code:
        raise Fault(judgement.sentence, judgement.code)


def _sweep(
    config: ConfigDict,
    places: list[Topology],
    size: DatasetSize,
    prices: dict[str, float],
    folder: pathlib.Path,
) -> None:
    throughput, command = _throughput(config, size, folder), _command()

    def planner(changed: ConfigDict, topology: Topology, subfolder: pathlib.Path) -> Plan:
        check_sizes(changed, topology)
        step = compile_cached(changed, topology, size, subfolder)
        plan = build_plan(changed, step, size, throughput, command)
        write_plan(plan, subfolder)
        return plan

    values = {name: [int(n) for n in flags.FLAGS[name].value or ()] for name in SWEEP_FLAGS}
    points = sweep.run_sweep(config, places, **values, planner=planner, folder=folder)
    text = sweep.format_sweep(points, prices)
    files.write(folder / "sweep.txt", text)
    page = sweep.sweep_page(points, prices, training_name(config), command)
    files.write(folder / "sweep.html", page)
    files.write(folder / "sweep.json", json.dumps(to_plain(points), indent=1))
    print(f"\n{text}\npage: {folder / 'sweep.html'}", flush=True)


def _throughput(config: ConfigDict, size: DatasetSize, folder: pathlib.Path) -> CpuThroughput:
    source = input_throughput.benchmark_source(config, size.image_size)
    return input_throughput.measure_cached(source, config, folder)


def _command() -> str:
    return shlex.join(["python", "-m", "ssl_jax.plan", *sys.argv[1:]])


def define_flags() -> None:
    """Declares the flags of this command."""
    flags.DEFINE_list("topology", None, "For example v5e:16x16, h100:8x4 (GPUs x hosts), cpu:8.")
    flags.mark_flag_as_required("topology")
    flags.DEFINE_integer("slices", 1, "Slices of a TPU topology, joined by DCN.", lower_bound=1)
    flags.DEFINE_string(
        "output",
        "runs/plan",
        "Folder for page, text, JSON and compiled programs; relative to the current folder.",
    )
    flags.DEFINE_integer(
        "images", 0, "Training images, if the data is not on this machine.", lower_bound=0
    )
    flags.DEFINE_integer(
        "classes", -1, "Classes, if the data is not on this machine; 0: no labels."
    )
    flags.DEFINE_bool("check", False, "Also run the step on this machine and compare.")
    flags.DEFINE_bool("sweep", False, "Compare the topologies and the values of the lists below.")
    flags.DEFINE_list("batches", [], "With --sweep: values of train.batch_size.")
    flags.DEFINE_list("microbatches", [], "With --sweep: values of train.microbatch.")
    flags.DEFINE_list("fsdp", [], "With --sweep: values of parallel.fsdp.")
    flags.DEFINE_list("price", [], "With --sweep: prices per chip-hour: v5e=1.2,v4=3.2.")


if __name__ == "__main__":
    cli.define_config()
    define_flags()
    cli.run(main)
