"""Parser of XLA's HLO text: instructions, their computations, and how often each one runs.

It reads both the lowered program and the optimised program of one device, as jaxlib and libtpu
print them. It needs only text, so this module does not import JAX.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}
# The computation that these opcodes call is a scalar function, a part of the instruction itself.
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
    """Array in the result of an instruction.

    Attributes:
      layout: for example "3,0,2,1:T(8,128)(2,1)S(1)"; "" if the program prints no layout.
    """

    dtype: str
    shape: tuple[int, ...]
    layout: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Number of bytes without padding."""
        return -(-self.size * self._bits // 8)

    @property
    def padded_bytes(self) -> int:
        """Number of bytes in memory: dimensions are padded to the tiles of the layout.

        "1,0:T(8,128)" stores blocks of 8 x 128 numbers of the last two dimensions. A second tile
        divides the blocks of the first one.
        """
        order, _, rest = self.layout.partition(":")
        shape = [self.shape[int(axis)] for axis in reversed(order.split(","))] if order else []
        tiles = re.match(r"T((?:\([\d,]+\))+)", rest)
        for tile in re.findall(r"\(([\d,]+)\)", tiles.group(1) if tiles else ""):
            sizes = [int(size) for size in tile.split(",")]
            shape = [1] * (len(sizes) - len(shape)) + shape
            tiled = zip(shape[-len(sizes) :], sizes, strict=True)
            shape[-len(sizes) :] = [*(-(-length // size) for length, size in tiled), *sizes]
        return -(-math.prod(shape) * self._bits // 8) if tiles else self.bytes

    @property
    def _bits(self) -> int:
        digits = re.search(r"\d+", self.dtype)
        return BITS.get(self.dtype) or (int(digits.group()) if digits else 0)

    @property
    def text(self) -> str:
        """The array in HLO's notation without layout: "bf16[8,128]"."""
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class Instruction(NamedTuple):
    """Instruction of a program for one device.

    Attributes:
      result: arrays of the result; all arrays of a tuple.
      operands: names of the operands.
      root: True if it is the result of its computation.
    """

    name: str
    result: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @property
    def source(self) -> str:
        """JAX's name of the operation: "jit(step)/jvp(ResNet)/conv1/...", or "".

        In a lowered program, names inside a loop body or function start at that body or function.
        """
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match.group(1).replace("\\'", "'") if match else ""

    @property
    def outputs(self) -> tuple[Array, ...]:
        """Arrays that the operation writes: the result without a start's operands and buffers."""
        if self.opcode == "send":
            return ()
        if self.opcode in ("copy-start", "recv"):
            return self.result[:1]
        if not self.opcode.endswith("-start") or self.opcode == "all-reduce-start":
            return self.result
        return self.result[len(self.operands) : 2 * len(self.operands)]

    @property
    def calls(self) -> list[tuple[str, str]]:
        """The called computations as (role, computation) pairs."""
        if self.opcode in REDUCERS:
            return []
        called = [(m.group(1), m.group(2)) for m in _CALLED.finditer(self.attributes)]
        for branches in _BRANCHES.finditer(self.attributes):
            called += [("branch", name.strip(" %")) for name in branches.group(1).split(",")]
        return called


class Module:
    """A program: its computations by name, callees before callers."""

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
            elif instruction := _parse_instruction(line):
                current[instruction.name] = instruction
        jitted = re.match(r"HloModule jit_(\w+)", text)
        self.name = f"jit({jitted.group(1)})" if jitted else ""  # prefix of the operations' names
        partitions = re.search(r"\bnum_partitions=(\d+)", text)
        self.partitions = int(partitions.group(1)) if partitions else 1
        self._lines = _frame_lines(text)

    def trips(self, loop: Instruction) -> int:
        """Returns how often a loop's body runs.

        Uses the compiler's trip count if it is known. Otherwise uses the constant with which the
        condition compares a counter that starts at 0, as in every `lax.scan`. Else returns 1.
        """
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known.group(1))
        condition = self.computations[dict(loop.calls)["condition"]]
        bounds = {
            int(i.attributes)
            for i in condition.values()
            if i.opcode == "constant" and i.attributes.isdigit()
        }
        compares = any(i.root and i.opcode in ("compare", "fusion") for i in condition.values())
        return bounds.pop() if compares and len(bounds) == 1 else 1

    def walk(self) -> Iterator[tuple[Instruction, str, int, str]]:
        """Yields (instruction, its computation, executions, full name) along every call path.

        The full name omits the program's name: "jvp(ResNet)/layer1_0/conv1/conv_general_dilated".
        """
        return self._walk(self.entry, 1, "")

    def _walk(self, computation: str, count: int, caller: str) -> Iterator:
        for instruction in self.computations[computation].values():
            own = instruction.source
            full = own.removeprefix(self.name) if own.startswith(self.name) else f"{caller}/{own}"
            yield instruction, computation, count, full.strip("/")
            trips = self.trips(instruction) if instruction.opcode == "while" else 1
            for role, callee in instruction.calls:
                # A loop checks its condition once more than its body runs; that costs nothing.
                yield from self._walk(callee, count * (trips if role == "body" else 1), full)

    def line(self, instruction: Instruction) -> str:
        """Returns "file.py:12" of the source line that asked for the instruction, or "".

        Lines of this package are preferred over lines of libraries.
        """
        frame = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
        return self._lines.get(int(frame.group(1)), "") if frame else ""


def continues_collective(instruction: Instruction, inside: dict[str, Instruction]) -> bool:
    """Returns True for later parts of a collective that another instruction started.

    libtpu splits an all-gather into steps that overlap with other work. Each step is a fusion
    that repeats the whole instruction; only the first one contains an AsyncCollectiveStart call.

    Args:
      inside: the computation of the instruction.
    """
    if "chain_id" not in instruction.attributes:
        return False
    return not any('"AsyncCollectiveStart"' in other.attributes for other in inside.values())


def _parse_instruction(line: str) -> Instruction | None:
    head = _LINE.match(line)
    if not head:
        return None
    start = head.end()
    end = _closing(line, start) + 1 if line[start] == "(" else line.index(" ", start)
    opening = line.index("(", end)
    closing = _closing(line, opening)
    opcode, inside = line[end + 1 : opening], line[opening + 1 : closing]
    value = opcode in ("constant", "parameter")
    return Instruction(
        name=head.group(2),
        result=parse_arrays(line[start:end]),
        opcode=opcode,
        operands=() if value else tuple(_OPERAND.findall(inside)),
        attributes=inside if value else line[closing + 1 :].lstrip(", "),
        root=bool(head.group(1)),
    )


def _closing(line: str, opening: int) -> int:
    """Returns the position of the parenthesis that closes the one at `opening`."""
    depth = 0
    for parenthesis in re.finditer(r"[()]", line[opening:]):
        depth += 1 if parenthesis.group() == "(" else -1
        if not depth:
            return opening + parenthesis.start()
    raise ValueError(f"no closing parenthesis in the HLO line: {line[:80]}")


def parse_arrays(text: str) -> tuple[Array, ...]:
    """Returns the arrays of a type such as "f32[2,3]{1,0}" or "(f32[], s32[4])"."""
    return tuple(
        Array(dtype, tuple(int(n.lstrip("<=")) for n in shape.split(",") if n), layout)
        for dtype, shape, layout in _ARRAY.findall(text)
    )


def _frame_lines(text: str) -> dict[int, str]:
    """Returns "file.py:12" by stack frame: the innermost line of this package, else of any file."""
    tables: dict[str, dict[int, str]] = {}
    current: dict[int, str] | None = None
    for line in text.splitlines():
        if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            current = tables.setdefault(line, {})
        elif current is not None and (entry := re.match(r"(\d+) (.*)", line)):
            current[int(entry.group(1))] = entry.group(2)
        elif line:
            current = None
    frames: dict[int, str] = {}
    ours: dict[int, bool] = {}
    for number, frame in tables.get("StackFrames", {}).items():
        location = tables["FileLocations"][_number("file_location_id", frame)]
        path = tables["FileNames"][_number("file_name_id", location)].strip('"')
        parent = _number("parent_frame_id", frame)
        own = "/ssl_jax/" in path
        inherits = not own and ours.get(parent, False)
        short = path.rpartition("/ssl_jax/")[2] if own else path.rpartition("/")[2]
        frames[number] = frames[parent] if inherits else f"{short}:{_number('line', location)}"
        ours[number] = own or inherits
    return frames


def _number(name: str, text: str) -> int:
    match = re.search(rf"\b{name}=(\d+)", text)
    return int(match.group(1)) if match else 0
