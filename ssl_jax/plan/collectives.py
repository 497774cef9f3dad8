"""Finds the collectives of a compiled program, with the mesh axis and network each one uses."""

import re
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from ssl_jax.plan import cost_analysis
from ssl_jax.plan.hlo import Instruction, Module, continues_collective
from ssl_jax.plan.program import Collective

REQUESTED = re.compile(r"\b(shard_map|shuffle)\b")
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all",
         "collective-permute", "collective-broadcast")  # fmt: skip


class Grid(NamedTuple):
    """Position of every partition on the mesh and on the network.

    Attributes:
      axes: (name, size) of the mesh axes, slowest first.
      islands: for every device the number of its slice or host.
      within: network inside an island.
      between: network between islands.
    """

    axes: tuple[tuple[str, int], ...]
    islands: tuple[int, ...]
    within: str
    between: str = "dcn"

    @property
    def size(self) -> int:
        """Number of devices."""
        return len(self.islands)

    def one_slice(self, size: int) -> "Grid":
        """Returns the grid of one slice of `size` devices; slices lie along the first axis."""
        (name, length), *rest = self.axes
        return self._replace(
            axes=((name, length * size // self.size), *rest), islands=self.islands[:size]
        )


class HloCollective(NamedTuple):
    """A collective instruction of the program.

    Attributes:
      shapes: shapes of the result.
      line: source line: "losses/pairs.py:151".
      requested: True if the code asks for it, inside `jax.shard_map` or in MoCo's named scope
        "shuffle"; False if the partitioner inserted it.
    """

    collective: Collective
    shapes: tuple[str, ...]
    line: str
    requested: bool


def find_collectives(module: Module, grid: Grid) -> list[HloCollective]:
    """Returns every collective that the program executes, in program order.

    A program for several slices is the program of one slice, with transfers between the slices.
    """
    slices = grid.size // module.partitions if len(set(grid.islands)) > 1 else 1
    if slices > 1 and grid.within == "ici":
        grid = grid.one_slice(module.partitions)
    instructions = []
    for instruction, computation, count, source in module.walk():
        if transfer := _slice_transfer(instruction, slices, grid, count):
            instructions.append(transfer)
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS or continues_collective(instruction, module.computations[computation]):
            continue
        arrays = instruction.outputs
        groups = _groups(instruction, grid.size)
        if max(map(len, groups)) == 1:
            continue
        collective = Collective(
            kind=kind,
            bytes=sum(array.bytes for array in arrays),
            count=count,
            group=max(map(len, groups)),
            axis=_axis(groups, grid),
            network=_network(groups, grid),
            source=_first_operation(cost_analysis.strip_wrappers(source)),
        )
        shapes = tuple(array.text for array in arrays)
        requested = bool(REQUESTED.search(source))
        instructions.append(HloCollective(collective, shapes, module.line(instruction), requested))
    return instructions


def _first_operation(source: str) -> str:
    """Shortens "a/(b/c:d/e)", the name of several merged operations, to the first and a count."""
    match = re.fullmatch(r"((?:.*?/)?)\((.*?):(.*)\)", source)
    if not match:
        return source
    return f"{match.group(1)}{match.group(2)} and {source.count(':')} more"


def _slice_transfer(
    instruction: Instruction, slices: int, grid: Grid, count: int
) -> HloCollective | None:
    """Returns a device's exchange, through its host, with its counterparts in other slices."""
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.attributes)
    if instruction.opcode != "recv" or kind is None:
        return None
    array, axis = instruction.result[0], grid.axes[0][0]
    name = kind.group(1).lower().replace("_", "-").replace("one-to-one", "collective-permute")
    collective = Collective(name, array.bytes, count, slices, axis, grid.between, "")
    return HloCollective(collective, (array.text,), "", requested=False)


def merge_equal(instructions: list[HloCollective]) -> tuple[Collective, ...]:
    """Merges equal collectives and sorts them by total bytes, largest first."""
    counts: dict[Collective, int] = defaultdict(int)
    for instruction in instructions:
        counts[instruction.collective._replace(count=0)] += instruction.collective.count
    merged = [collective._replace(count=count) for collective, count in counts.items()]
    return tuple(sorted(merged, key=lambda collective: -collective.bytes * collective.count))


def _groups(instruction: Instruction, size: int) -> list[list[int]]:
    """Returns the groups of devices that exchange; for a permutation its cycles and chains."""
    text = instruction.attributes
    pairs = re.search(r"source_target_pairs=\{((?:\{[\d,]+\},?)*)\}", text)
    if pairs:
        return _connected(_lists(pairs.group(1)), size)
    lists = re.search(r"replica_groups=\{((?:\{[\d, ]*\},?)*)\}", text)
    if lists:
        return _lists(lists.group(1)) or [list(range(size))]
    iota = re.search(r"replica_groups=(\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)", text)
    if iota:
        return _iota(iota.group(1)).tolist()
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\](.*?)\{([^}]*)\}", text)
    if mesh:
        return _mesh_groups(*mesh.groups())
    raise ValueError(f"HLO collective {instruction.name}: unknown notation of its device groups")


def _lists(text: str) -> list[list[int]]:
    return [[int(n) for n in part.split(",")] for part in re.findall(r"\{([\d, ]+)\}", text)]


def _iota(text: str) -> np.ndarray:
    """Returns the numbers of a group in iota notation.

    "[4,2]<=[2,4]T(1,0)" means 0 to 7 in shape [2, 4], transposed, reshaped to [4, 2].
    """
    shape, source, _, order = re.fullmatch(
        r"\[([\d,]+)\]<=\[([\d,]+)\](T\(([\d,]+)\))?", text
    ).groups()  # type: ignore[union-attr]
    numbers = np.arange(np.prod(_numbers(source))).reshape(_numbers(source))
    if order:
        numbers = numbers.transpose(_numbers(order))
    return numbers.reshape(_numbers(shape))


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


def _mesh_groups(axes: str, ids: str, names: str) -> list[list[int]]:
    """Returns the groups of a mesh notation.

    "mesh['a'=2,'b'=4] {'b'}" groups devices that differ only in b; 'a':(1)2 is a part of axis a.
    """
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    numbers = np.arange(np.prod(list(sizes.values())))
    iota = re.search(r"\[([\d,]+)\](T\([\d,]+\))?", ids)
    if iota:
        numbers = _iota(f"[{len(numbers)}]<=[{iota.group(1)}]{iota.group(2) or ''}")
    elif order := re.search(r"\(([\d, ]+)\)", ids):
        numbers = np.array(_numbers(order.group(1)))
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
    others = [axis for axis in range(len(shape)) if axis not in chosen]
    group = int(np.prod([shape[axis] for axis in chosen]))
    return numbers.reshape(shape).transpose(*others, *chosen).reshape(-1, group).tolist()


def _connected(pairs: list[list[int]], size: int) -> list[list[int]]:
    """Returns the groups of devices that a permutation joins, directly or through others."""
    group = list(range(size))
    for source, target in pairs:
        old, new = group[source], group[target]
        group = [new if mine == old else mine for mine in group]
    members: dict[int, list[int]] = defaultdict(list)
    for device, mine in enumerate(group):
        members[mine].append(device)
    return list(members.values())


def _axis(groups: list[list[int]], grid: Grid) -> str:
    """Returns the mesh axes along which the groups run; "other" for parts of axes."""
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
    """Returns the networks that join the devices of a group."""
    crossing, inside = False, False
    for group in groups:
        islands = {grid.islands[device] for device in group}
        crossing |= len(islands) > 1
        inside |= len(islands) < len(group)
    if crossing and inside:
        return f"{grid.within}+{grid.between}"
    return grid.between if crossing else grid.within
