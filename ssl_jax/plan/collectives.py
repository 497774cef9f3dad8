"""What devices exchange: the collectives of a compiled program, on which axis and network."""

import re
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from ssl_jax.plan import cost_analysis
from ssl_jax.plan.hlo import Array, Instruction, Module
from ssl_jax.plan.program import Collective

ASKED_FOR = re.compile(r"\b(shard_map|shuffle)\b")
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all",
         "collective-permute", "collective-broadcast")  # fmt: skip


class Grid(NamedTuple):
    """How devices lie: what a partition's number means."""

    axes: tuple[tuple[str, int], ...]  # of the mesh, slowest first
    islands: tuple[int, ...]  # of every device its slice or host
    within: str  # the network inside of an island
    between: str = "dcn"

    @property
    def size(self) -> int:
        """Devices."""
        return len(self.islands)

    def of_slice(self, size: int) -> "Grid":
        """That of one slice of so many devices: slices follow each other along the first axis."""
        (name, length), *rest = self.axes
        return self._replace(
            axes=((name, length * size // self.size), *rest), islands=self.islands[:size]
        )


class Exchange(NamedTuple):
    """A collective as it stands in the program."""

    fact: Collective
    shapes: tuple[str, ...]  # of the result
    line: str  # "losses/pairs.py:151"
    by_hand: bool  # asked for: inside of `jax.shard_map`, or of MoCo's named scope "shuffle"


def exchanges(module: Module, grid: Grid) -> list[Exchange]:
    """Every collective of the program that runs, in its order.

    A program for several slices is that of one, which calls on the network to join them.
    """
    slices = grid.size // module.partitions if len(set(grid.islands)) > 1 else 1
    if slices > 1 and grid.within == "ici":
        grid = grid.of_slice(module.partitions)
    found = []
    for instruction, place, count, source in module.walk():
        if joined := _between_slices(instruction, slices, grid, count):
            found.append(joined)
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS or _continued(instruction, module, place):
            continue
        arrays = _payload(instruction)
        groups = _groups(instruction, grid.size)
        if max(map(len, groups)) == 1:
            continue
        fact = Collective(
            kind=kind,
            bytes=sum(array.bytes for array in arrays),
            count=count,
            group=max(map(len, groups)),
            axis=_axis(groups, grid),
            network=_network(groups, grid),
            source=_first(cost_analysis.plain(source)),
        )
        shapes = tuple(array.text for array in arrays)
        found.append(
            Exchange(fact, shapes, module.line(instruction), bool(ASKED_FOR.search(source)))
        )
    return found


def _first(source: str) -> str:
    """Of a name "a/(b/c:d/e)" of several operations in one, the first and how many more."""
    found = re.fullmatch(r"((?:.*?/)?)\((.*?):(.*)\)", source)
    if not found:
        return source
    return f"{found.group(1)}{found.group(2)} and {source.count(':')} more"


def _between_slices(
    instruction: Instruction, slices: int, grid: Grid, count: int
) -> Exchange | None:
    """What a device gets from its like in the other slices, through its host."""
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.attributes)
    if instruction.opcode != "recv" or kind is None:
        return None
    array, axis = instruction.result[0], grid.axes[0][0]
    name = kind.group(1).lower().replace("_", "-").replace("one-to-one", "collective-permute")
    fact = Collective(name, array.bytes, count, slices, axis, grid.between, "")
    return Exchange(fact, (array.text,), "", by_hand=False)


def merged(found: list[Exchange]) -> tuple[Collective, ...]:
    """Equal collectives as one, by their total bytes."""
    counts: dict[Collective, int] = defaultdict(int)
    for exchange in found:
        counts[exchange.fact._replace(count=0)] += exchange.fact.count
    facts = [fact._replace(count=count) for fact, count in counts.items()]
    return tuple(sorted(facts, key=lambda fact: -fact.bytes * fact.count))


def _continued(instruction: Instruction, module: Module, place: str) -> bool:
    """Whether it goes on with a collective that another instruction has begun.

    libtpu cuts an all-gather into steps that run beside other work, each in a fusion of its own
    that repeats the whole instruction; the first alone ends in this call.
    """
    if "chain_id" not in instruction.attributes:
        return False
    others = module.computations[place].values()
    return not any('"AsyncCollectiveStart"' in other.attributes for other in others)


def _payload(instruction: Instruction) -> tuple[Array, ...]:
    """The arrays of the result; what a start holds beside it is left out."""
    arrays = instruction.result
    if not instruction.opcode.endswith("-start") or instruction.opcode == "all-reduce-start":
        return arrays
    # (operands, results, what else is needed)
    operands = len(instruction.operands)
    return arrays[operands : 2 * operands]


def _groups(instruction: Instruction, size: int) -> list[list[int]]:
    """Which devices exchange with each other; of a permutation its cycles and chains."""
    text = instruction.attributes
    pairs = re.search(r"source_target_pairs=\{((?:\{[\d,]+\},?)*)\}", text)
    if pairs:
        return _connected(_lists(pairs.group(1)), size)
    listed = re.search(r"replica_groups=\{((?:\{[\d, ]*\},?)*)\}", text)
    if listed:
        return _lists(listed.group(1)) or [list(range(size))]
    iota = re.search(r"replica_groups=(\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)", text)
    if iota:
        return _iota(iota.group(1)).tolist()
    named = re.search(r"replica_groups=mesh\[([^\]]*)\](.*?)\{([^}]*)\}", text)
    if named:
        return _of_mesh(*named.groups())
    raise ValueError(f"{instruction.name}: its groups are written in an unknown way")


def _lists(text: str) -> list[list[int]]:
    return [[int(n) for n in part.split(",")] for part in re.findall(r"\{([\d, ]+)\}", text)]


def _iota(text: str) -> np.ndarray:
    """ "[4,2]<=[2,4]T(1,0)": the numbers from 0 in shape [2, 4], transposed, in shape [4, 2]."""
    shape, source, _, order = re.fullmatch(
        r"\[([\d,]+)\]<=\[([\d,]+)\](T\(([\d,]+)\))?", text
    ).groups()  # type: ignore[union-attr]
    numbers = np.arange(np.prod(_numbers(source))).reshape(_numbers(source))
    if order:
        numbers = numbers.transpose(_numbers(order))
    return numbers.reshape(_numbers(shape))


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


def _of_mesh(axes: str, ids: str, names: str) -> list[list[int]]:
    """ "mesh['a'=2,'b'=4] {'b'}": devices that differ in b alone; 'a':(1)2 is a part of an axis."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    numbers = np.arange(np.prod(list(sizes.values())))
    iota = re.search(r"\[([\d,]+)\](T\([\d,]+\))?", ids)
    if iota:
        numbers = _iota(f"[{len(numbers)}]<=[{iota.group(1)}]{iota.group(2) or ''}")
    elif listed := re.search(r"\(([\d, ]+)\)", ids):
        numbers = np.array(_numbers(listed.group(1)))
    shape: list[int] = []
    chosen: list[int] = []
    parts = {
        name: (int(before), int(size))
        for name, before, size in re.findall(r"'([^']+)':\((\d+)\)(\d+)", names)
    }
    whole = set(re.findall(r"'([^']+)'(?!:)", names))
    for name, size in sizes.items():
        before, part = parts.get(name, (1, size))
        if name in parts or name in whole:
            chosen.append(len(shape) + 1)
        shape += [before, part, size // before // part]
    kept = [axis for axis in range(len(shape)) if axis not in chosen]
    group = int(np.prod([shape[axis] for axis in chosen]))
    return numbers.reshape(shape).transpose(*kept, *chosen).reshape(-1, group).tolist()


def _connected(pairs: list[list[int]], size: int) -> list[list[int]]:
    """Devices that a permutation joins, directly or through others."""
    group = list(range(size))
    for source, target in pairs:
        old, new = group[source], group[target]
        group = [new if mine == old else mine for mine in group]
    members: dict[int, list[int]] = defaultdict(list)
    for device, mine in enumerate(group):
        members[mine].append(device)
    return list(members.values())


def _axis(groups: list[list[int]], grid: Grid) -> str:
    """Axes of the mesh along which the groups run; "other" for parts of them."""
    sizes = [size for _, size in grid.axes]
    numbers = np.arange(grid.size).reshape(sizes)
    largest = max(groups, key=len)
    places = np.array(np.unravel_index(largest, sizes))
    varying = [axis for axis in range(len(sizes)) if len(set(places[axis])) > 1]
    lines = tuple(slice(None) if axis in varying else places[axis][0] for axis in range(len(sizes)))
    if sorted(largest) != sorted(numbers[lines].ravel()):
        return "other"
    return ",".join(grid.axes[axis][0] for axis in varying)


def _network(groups: list[list[int]], grid: Grid) -> str:
    """What joins the devices of a group."""
    crossing, inside = False, False
    for group in groups:
        islands = {grid.islands[device] for device in group}
        crossing |= len(islands) > 1
        inside |= len(islands) < len(group)
    if crossing and inside:
        return f"{grid.within}+{grid.between}"
    return grid.between if crossing else grid.within
