"""Plan a training for devices that you do not have yet: memory, step time, chip-hours.

    python -m ssl_jax.plan --config=configs/simclr.py:imagenet --topology=v5e:16x16
    python -m ssl_jax.plan --config=configs/simclr.py:imagenet --topology=h100:8x4
    python -m ssl_jax.plan --config=configs/simclr.py:imagenet --sweep \\
        --topology=v5e:8x8,v5e:16x16,v4:4x4x4 --batches=4096,8192 --output=plans/sweep
    python -m ssl_jax.plan --config=configs/simclr.py:digits --topology=cpu:8 --check

Compiles the training's own step for the topology, without its chips, and prints what it takes;
`OUTPUT/plan.html`, `plan.txt` and `plan.json` hold the same. Exit code 82 when it does not fit, 83
when devices repeat work that should be divided. TPU topologies need `pip install libtpu`.
"""

import importlib.util
import json
import pathlib
import shlex
import sys

from absl import flags
from ml_collections import ConfigDict

from ssl_jax import cli
from ssl_jax.errors import MISSING_INPUT, USAGE, Fault
from ssl_jax.plan import (
    build_plan,
    compile_in_subprocess,
    dataset_size,
    input_throughput,
    result,
    sweep,
    topologies,
)
from ssl_jax.plan.counts import Counts
from ssl_jax.plan.dataset_size import Counts
from ssl_jax.plan.facts import Topology
from ssl_jax.plan.input_throughput import Speed
from ssl_jax.plan.inputs import Speed
from ssl_jax.plan.program import Topology
from ssl_jax.plan.record import Plan
from ssl_jax.plan.result import Plan
from ssl_jax.rundir import workdir

LISTS = ("batches", "microbatches", "fsdp")


def main() -> None:
    """The verb: see the module's docstring."""
    config, places = cli.config(), _topologies()
    given, prices = flags.FLAGS, _prices()
    data = config.data
    if not given.sweep:
        build_plan.sizes(config, places[0])
    counted = dataset_size.of(
        data.source, data_dir=data.dir, split=data.split,
        images=given.images, classes=given.classes,
    )  # fmt: skip
    with workdir.open_workdir(given.output, "output") as output:
        folder = pathlib.Path(output.path)
        if given.sweep:
            _sweep(config, places, counted, prices, folder)
        else:
            _one(config, places[0], counted, folder)


def _topologies() -> list[Topology]:
    """What --topology names; raises Fault for mistakes among the flags."""
    given = flags.FLAGS
    lists = [name for name in (*LISTS, "price") if given[name].value]
    if lists and not given.sweep:
        raise Fault(f"--{lists[0]} is of a comparison; add --sweep", USAGE)
    if len(given.topology) != 1 and not given.sweep:
        raise Fault("give one --topology, or compare several by --sweep", USAGE)
    if given.check and given.sweep:
        raise Fault("--check runs one topology; leave out --sweep", USAGE)
    places = [topologies.parse(name, slices=given.slices) for name in given.topology]
    if any(p.chip.kind != "cpu" for p in places) and not importlib.util.find_spec("libtpu"):
        message = "compiling for TPUs, which also stand in for GPUs, needs libtpu"
        raise Fault(f"{message}: pip install libtpu", MISSING_INPUT)
    return places


def _prices() -> dict[str, float]:
    """--price=v5e=1.2,v4=3.2."""
    found = {}
    for part in flags.FLAGS["price"].value or ():
        chip, _, number = part.partition("=")
        try:
            found[chip] = float(number)
        except ValueError:
            raise Fault(f"--price: {part!r} is not CHIP=NUMBER, e.g. v5e=1.2", USAGE) from None
    chips = {name.split(":")[0] for name in flags.FLAGS.topology}
    if found and chips - found.keys():
        raise Fault(f"--price lacks {', '.join(sorted(chips - found.keys()))}", USAGE)
    return found


def _one(config: ConfigDict, place: Topology, counted: Counts, folder: pathlib.Path) -> None:
    print(f"compiling for {place.name} (minutes for TPUs, unless done before)", flush=True)
    found = compile_in_subprocess.get(config, place, counted, folder, check=flags.FLAGS.check)
    plan = build_plan.plan(config, found, counted, _speed(config, counted, folder), _command())
    print(build_plan.write(plan, folder))
    print(f"page: {folder / 'plan.html'}", flush=True)
    _end(plan)


def _sweep(
    config: ConfigDict,
    places: list[Topology],
    counted: Counts,
    prices: dict[str, float],
    folder: pathlib.Path,
) -> None:
    speed, command = _speed(config, counted, folder), _command()

    def plan(changed: ConfigDict, place: Topology, where: pathlib.Path) -> Plan:
        build_plan.sizes(changed, place)
        made = build_plan.plan(
            changed,
            compile_in_subprocess.get(changed, place, counted, where),
            counted,
            speed,
            command,
        )
        build_plan.write(made, where)
        return made

    sizes = {name: [int(n) for n in flags.FLAGS[name].value or ()] for name in LISTS}
    found = sweep.points(config, places, **sizes, make=plan, folder=folder)
    lines = sweep.lines(found, prices)
    (folder / "sweep.txt").write_text(lines, encoding="utf-8")
    page = sweep.page(found, prices, build_plan.name(config), command)
    (folder / "sweep.html").write_text(page, encoding="utf-8")
    (folder / "sweep.json").write_text(json.dumps(result.plain(found), indent=1), encoding="utf-8")
    print(f"\n{lines}\npage: {folder / 'sweep.html'}", flush=True)


def _speed(config: ConfigDict, counted: Counts, folder: pathlib.Path) -> Speed:
    from ssl_jax import build

    data = config.data
    source = input_throughput.pictures(
        data.source, data_dir=data.dir, split=data.split, size=counted.size
    )
    return input_throughput.measured(source, build.views(config), folder)


def _command() -> str:
    return shlex.join(["python", "-m", "ssl_jax.plan", *sys.argv[1:]])


def _end(plan: Plan) -> None:
    """The command's exit code: what the plan found."""
    found = result.verdict(plan.program)
    if found.code:
        raise Fault(found.sentence, found.code)


def define_flags() -> None:
    """Declares the flags of this verb."""
    flags.DEFINE_list("topology", None, "E.g. v5e:16x16, h100:8x4 (GPUs x hosts), cpu:8.")
    flags.mark_flag_as_required("topology")
    flags.DEFINE_integer("slices", 1, "Slices of a TPU topology, joined by DCN.", lower_bound=1)
    flags.DEFINE_string("output", "runs/plan", "Folder for page, text, JSON and compiled programs.")
    flags.DEFINE_integer(
        "images", 0, "Training images, where the data are not here.", lower_bound=0
    )
    flags.DEFINE_integer("classes", -1, "Classes of them, likewise; 0: no labels.")
    flags.DEFINE_bool("check", False, "Run the step on this machine, beside the prediction.")
    flags.DEFINE_bool("sweep", False, "Compare topologies and the lists below.")
    flags.DEFINE_list("batches", [], "With --sweep: values of train.batch_size.")
    flags.DEFINE_list("microbatches", [], "With --sweep: values of train.microbatch.")
    flags.DEFINE_list("fsdp", [], "With --sweep: values of parallel.fsdp.")
    flags.DEFINE_list("price", [], "With --sweep: of chip-hours, e.g. v5e=1.2,v4=3.2.")


if __name__ == "__main__":
    cli.define_config()
    define_flags()
    cli.run(main)
