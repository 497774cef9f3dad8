"""Counts the bytes that one device reads from and writes to its memory in one run of a program.

XLA's own figure, `bytes accessed`, charges a prefetch of a slice into a TPU's fast memory with the
whole array, charges the end of a prefetch again, and charges traffic inside the fast memory. It is
about right for TPUs with little fast memory (v3), and several times too high for those with much
(v5e, v6e); benchmarks/RESULTS.md has the ratios. This module counts the scheduled operations:

* An array in HBM counts with its size in memory, which includes the padding of its tiles. An array
  in another memory does not count; its layout says S(1) or higher: VMEM, CMEM, SMEM, semaphores.
* An operation reads each operand once and writes each result once. A kernel that reads an operand
  several times, such as a large matrix product, moves more than is counted.
* A fusion moves only its own operands and results. It reads the slices that it takes from an
  operand, if it only slices the operand.
* `slice`, `dynamic-slice` and `gather` read what they return. `dynamic-update-slice` writes the
  update in place. `scatter` reads and writes, in place, as many bytes as its updates have.
* A copy or slice that runs in the background (`copy-start`, `slice-start`) counts at its start, as
  what it reads and writes; its end (`copy-done`) moves nothing.
* A collective reads its operands and writes its results once on each device. If libtpu splits it
  into a chain of fusions, the first one counts; the others pass the buffers along.
* A loop counts its body once for each iteration, or once if the program does not state how many
  there are. A conditional counts its largest branch.
* Names for memory (tuples, bitcasts, parameters, buffers allocated in advance) move nothing.

A GPU or CPU has no memory that a program manages. For those, every operand and result counts
without padding, also where the program keeps it in fast memory, and copies to and from fast memory
do not count. Caches are ignored.
"""

import re
from collections.abc import Iterable

from ssl_jax.plan.hlo import Array, Instruction, Module, continues_collective

FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "replica-id", "add-dependency", "opt-barrier"),
}
# Custom calls that name memory: a new buffer, and slices that were copied next to each other.
FREE_CALLS = re.compile(r'custom_call_target="(AllocateBuffer|ConcatBitcast)"')
SLICES = ("slice", "dynamic-slice", "gather")
# Operations that change a part of their first operand, with the position of the new values.
UPDATES = {"dynamic-update-slice": 1, "scatter": 2}
NOTHING = Array("token", (), "")
# Memories that hold arrays and that only a TPU has, by their number in layouts: VMEM and CMEM.
FAST_MEMORIES = (1, 3)
_SPACE = re.compile(r"S\((\d+)\)")
_ALIASES = re.compile(r"output_to_operand_aliasing=\{(.*?\))\}")
_ALIAS = re.compile(r"\{(\d*)[\d, ]*\}: \(")

Computation = dict[str, Instruction]
# A part of an array that moves, and the array, which says where the part is.
Moves = Iterable[tuple[Array, Array]]


def total_bytes(module: Module, *, fast_memory: bool) -> int:
    """Returns the bytes that one run of the program moves to and from memory.

    Args:
      module: the compiled program of one device.
      fast_memory: True for a TPU, whose program manages fast memory; False for a CPU or GPU, or to
        count a TPU's program as if it ran on one.
    """
    return _Counter(module, fast_memory).computation(module.entry)


class _Counter:
    """Counts bytes by the rules of this module."""

    def __init__(self, module: Module, fast_memory: bool):
        self._module = module
        self._fast_memory = fast_memory

    def computation(self, name: str) -> int:
        """Returns the bytes of one run of a computation."""
        inside = self._module.computations[name]
        return sum(self._instruction(instruction, inside) for instruction in inside.values())

    def _instruction(self, instruction: Instruction, inside: Computation) -> int:
        opcode = instruction.opcode
        if opcode in FREE or opcode.endswith(("-done", "-update")):
            return 0
        if opcode == "custom-call" and FREE_CALLS.search(instruction.attributes):
            return 0
        if opcode == "fusion":
            return self._fusion(instruction, inside)
        if not instruction.calls:
            return self._operation(instruction, inside)
        called = [self.computation(name) for _, name in instruction.calls]
        if opcode == "conditional":
            return max(called)
        return sum(called) * (self._module.trips(instruction) if opcode == "while" else 1)

    def _operation(self, instruction: Instruction, inside: Computation) -> int:
        """Returns the bytes of an operation that calls no other operations."""
        kind = instruction.opcode.removesuffix("-start")
        operands = [array for name in instruction.operands for array in inside[name].result]
        results = list(instruction.outputs)
        if kind in ("copy", "slice") and self._only_changes_memory(operands[0], results[0]):
            return 0
        read, written = [*operands], [*results]
        if kind in SLICES:
            read[0] = results[0]
        elif kind == "dynamic-update-slice":
            read[0], written[0] = NOTHING, operands[1]
        elif kind == "scatter":
            read[: len(results)] = written = operands[-len(results) :]
        return self._move(zip(read + written, operands + results, strict=True))

    def _fusion(self, fusion: Instruction, inside: Computation) -> int:
        callee = self._module.computations[dict(fusion.calls)["calls"]]
        operands = [inside[name].result[0] for name in fusion.operands]
        aliases = _ALIASES.search(fusion.attributes)
        kept = {int(n or 0) for n in _ALIAS.findall(aliases.group())} if aliases else set()
        moves = []
        written = zip(fusion.result, _written(_root(callee), callee), strict=True)
        for number, (result, parts) in enumerate(written):
            if number not in kept:
                moves += [(part, result) for part in parts or [result]]
        for parameter in callee.values():
            if parameter.opcode == "parameter":
                operand = operands[int(parameter.attributes)]
                moves += [(part, operand) for part in self._read(parameter, callee)]
        return self._move(moves)

    def _read(self, parameter: Instruction, inside: Computation) -> list[Array]:
        """Returns what a fusion reads of an operand: its slices, if the fusion only slices it.

        An operand that is also the result is read whole, by the user of the result.
        """
        parts = list(parameter.result) if parameter.root else []
        for user in (i for i in inside.values() if parameter.name in i.operands):
            first = user.operands[0] == parameter.name
            if user.opcode == "bitcast":
                parts += self._read(user, inside)
            elif user.opcode == "fusion":
                callee = self._module.computations[dict(user.calls)["calls"]]
                for inner in (i for i in callee.values() if i.opcode == "parameter"):
                    if user.operands[int(inner.attributes)] == parameter.name:
                        parts += self._read(inner, callee)
            elif user.opcode in SLICES and first:
                parts += user.result
            elif user.opcode == "scatter" and first:
                parts += inside[user.operands[UPDATES["scatter"]]].result
            elif not (user.opcode == "dynamic-update-slice" and first) and _uses(user, inside):
                return list(parameter.result)
        return min(parts, list(parameter.result), key=lambda arrays: sum(map(self._size, arrays)))

    def _only_changes_memory(self, source: Array, target: Array) -> bool:
        """Returns True for a copy between fast memory and HBM that does not exist on this device.

        A copy that also transposes exists on every device.
        """
        layouts = {_SPACE.sub("", source.layout), _SPACE.sub("", target.layout)}
        return not self._fast_memory and _space(source) != _space(target) and len(layouts) == 1

    def _size(self, array: Array) -> int:
        return array.padded_bytes if self._fast_memory else array.bytes

    def _move(self, moves: Moves) -> int:
        """Returns the bytes of the parts whose arrays are in the counted memory."""
        counted = (0,) if self._fast_memory else (0, *FAST_MEMORIES)
        return sum(self._size(part) for part, array in moves if _space(array) in counted)


def _written(output: Instruction, inside: Computation) -> list[list[Array]]:
    """Returns, for each array of a fusion's output, the parts that move; [] for the whole array.

    An update in place changes only a part: of a fusion's operand, since any other array is new.
    """
    if output.opcode == "tuple":
        return [parts for name in output.operands for parts in _written(inside[name], inside)]
    if output.opcode == "bitcast":
        return _written(inside[output.operands[0]], inside)
    if output.opcode in UPDATES and len(output.result) == 1:
        target = inside[output.operands[0]]
        while target.opcode == "bitcast":
            target = inside[target.operands[0]]
        if target.opcode == "parameter":
            return [list(inside[output.operands[UPDATES[output.opcode]]].result)]
    return [[] for _ in output.result]


def _uses(user: Instruction, inside: Computation) -> bool:
    """Returns False for an instruction of a fusion that hands its operands on without reading."""
    done = '"AsyncCollectiveDone"' in user.attributes
    return not (user.opcode == "tuple" or done or continues_collective(user, inside))


def _root(computation: Computation) -> Instruction:
    return next(instruction for instruction in computation.values() if instruction.root)


def _space(array: Array) -> int:
    """Returns the number of an array's memory: 0 for HBM."""
    space = _SPACE.search(array.layout)
    return int(space.group(1)) if space else 0
