"""Reads programs in the text form of XLA's HLO: which instruction stands where, how often it runs.

Both the program as it is lowered and the optimised one of a single device are understood, as jaxlib
and libtpu print them. Nothing but text is needed, so nothing here imports JAX.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}
# What these call is a scalar function, part of the instruction itself.
REDUCERS = {
    *("all-reduce", "all-reduce-start", "reduce-scatter", "reduce", "reduce-window", "scatter"),
    *("select-and-scatter", "sort", "map", "async-update", "async-done"),
}
_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([0-9,<=]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*-> .*)?\{$")
_LINE = re.compile(r"^  (ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(
    r"(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_OPERAND = re.compile(r"(?:^|, )(?:/\*[^*]*\*/)?(?:[^,%]* )?%?([\w.\-]+)(?=,|$)")


class Array(NamedTuple):
    """One array of an instruction's result."""

    dtype: str
    shape: tuple[int, ...]
    layout: str  # "3,0,2,1:T(8,128)(2,1)S(1)"; "" where none is printed

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Without padding."""
        found = re.search(r"\d+", self.dtype)
        bits = BITS.get(self.dtype) or (int(found.group()) if found else 0)
        return -(-self.size * bits // 8)

    @property
    def text(self) -> str:
        """As HLO writes it, without layout: "bf16[8,128]"."""
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class Instruction(NamedTuple):
    """One instruction; its arrays are those of one device."""

    name: str
    result: tuple[Array, ...]  # of a tuple, all arrays in it
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @property
    def source(self) -> str:
        """The operation as JAX names it: "jit(step)/jvp(ResNet)/conv1/...", or "". As lowered, a
        loop's body and a function name theirs from their own beginning."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found.group(1).replace("\\'", "'") if found else ""

    @property
    def calls(self) -> list[tuple[str, str]]:
        """(role, computation) of what it runs."""
        if self.opcode in REDUCERS:
            return []
        found = [(m.group(1), m.group(2)) for m in _CALLED.finditer(self.attributes)]
        for listed in _BRANCHES.finditer(self.attributes):
            found += [("branch", name.strip(" %")) for name in listed.group(1).split(",")]
        return found


class Module:
    """A program: computations by name, callees before callers."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry, current = "", None
        for line in text.splitlines():
            if current is None:
                head = _HEAD.match(line)
                if head:
                    current = self.computations.setdefault(head.group(2), {})
                    self.entry = head.group(2) if head.group(1) else self.entry
            elif line.startswith("}"):
                current = None
            elif instruction := _instruction(line):
                current[instruction.name] = instruction
        named = re.match(r"HloModule jit_(\w+)", text)
        self.name = f"jit({named.group(1)})" if named else ""  # as it begins the names in it
        partitions = re.search(r"\bnum_partitions=(\d+)", text)
        self.partitions = int(partitions.group(1)) if partitions else 1
        self._lines = _lines(text)

    def trips(self, loop: Instruction) -> int:
        """Executions of a loop's body: known to the compiler, or the bound that a counter from 0
        is compared with, as of every `lax.scan`; 1 where neither is there."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known.group(1))
        condition = self.computations[dict(loop.calls)["condition"]]
        bounds = {
            int(i.attributes)
            for i in condition.values()
            if i.opcode == "constant" and i.attributes.isdigit()
        }
        compared = any(i.root and i.opcode in ("compare", "fusion") for i in condition.values())
        return bounds.pop() if compared and len(bounds) == 1 else 1

    def walk(self) -> Iterator[tuple[Instruction, str, int, str]]:
        """(instruction, its computation, executions, its full name) by every way that leads to it.

        The name is without the program's own: "jvp(ResNet)/layer1_0/conv1/conv_general_dilated".
        """
        return self._walk(self.entry, 1, "")

    def _walk(self, place: str, count: int, above: str) -> Iterator:
        for instruction in self.computations[place].values():
            own = instruction.source
            full = own.removeprefix(self.name) if own.startswith(self.name) else f"{above}/{own}"
            yield instruction, place, count, full.strip("/")
            times = self.trips(instruction) if instruction.opcode == "while" else 1
            for role, called in instruction.calls:
                # A loop looks once more at its condition; nothing costly stands there.
                yield from self._walk(called, count * (times if role == "body" else 1), full)

    def line(self, instruction: Instruction) -> str:
        """ "file.py:12" of the line of ours, or else of anybody's, that asked for it; or ""."""
        found = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
        return self._lines.get(int(found.group(1)), "") if found else ""


def _instruction(line: str) -> Instruction | None:
    found = _LINE.match(line)
    if not found:
        return None
    start = found.end()
    end = _closing(line, start) + 1 if line[start] == "(" else line.index(" ", start)
    opening = line.index("(", end)
    closing = _closing(line, opening)
    opcode, inside = line[end + 1 : opening], line[opening + 1 : closing]
    value = opcode in ("constant", "parameter")
    return Instruction(
        name=found.group(2),
        result=arrays(line[start:end]),
        opcode=opcode,
        operands=() if value else tuple(_OPERAND.findall(inside)),
        attributes=inside if value else line[closing + 1 :].lstrip(", "),
        root=bool(found.group(1)),
    )


def _closing(line: str, opening: int) -> int:
    """Place of the parenthesis that closes the one at `opening`."""
    depth = 0
    for found in re.finditer(r"[()]", line[opening:]):
        depth += 1 if found.group() == "(" else -1
        if not depth:
            return opening + found.start()
    raise ValueError(f"no end: {line[:80]}")


def arrays(text: str) -> tuple[Array, ...]:
    """The arrays of a type: "f32[2,3]{1,0}", "(f32[], s32[4])"."""
    return tuple(
        Array(dtype, tuple(int(n.lstrip("<=")) for n in shape.split(",") if n), layout)
        for dtype, shape, layout in _ARRAY.findall(text)
    )


def _lines(text: str) -> dict[int, str]:
    """Stack frames as "file.py:12": the innermost of ours, else the innermost."""
    tables: dict[str, dict[int, str]] = {}
    current: dict[int, str] | None = None
    for line in text.splitlines():
        if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            current = tables.setdefault(line, {})
        elif current is not None and (found := re.match(r"(\d+) (.*)", line)):
            current[int(found.group(1))] = found.group(2)
        elif line:
            current = None
    frames: dict[int, str] = {}
    ours: dict[int, bool] = {}
    for number, frame in tables.get("StackFrames", {}).items():
        place = tables["FileLocations"][_number("file_location_id", frame)]
        path = tables["FileNames"][_number("file_name_id", place)].strip('"')
        parent = _number("parent_frame_id", frame)
        own = "/ssl_jax/" in path
        inherits = not own and ours.get(parent, False)
        short = path.rpartition("/ssl_jax/")[2] if own else path.rpartition("/")[2]
        frames[number] = frames[parent] if inherits else f"{short}:{_number('line', place)}"
        ours[number] = own or inherits
    return frames


def _number(name: str, text: str) -> int:
    found = re.search(rf"\b{name}=(\d+)", text)
    return int(found.group(1)) if found else 0
