"""What a program computes: operations of its products and convolutions, and bytes that it moves.

XLA's own count takes a loop's body for once; here a body counts as often as it runs.
"""

import math
import re
from collections import defaultdict
from functools import cache
from typing import NamedTuple

from ssl_jax.plan.hlo import Array, Instruction, Module

# Instructions that move nothing by themselves.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while"),
    *("call", "conditional", "partition-id", "replica-id", "add-dependency", "opt-barrier"),
}
SLICES = {"slice", "dynamic-slice", "gather"}
WRAPPERS = {"while", "body", "closed_call", "checkpoint", "cond", "shard_map"}
ELSEWHERE = re.compile(r"S\([1-9]")  # another memory space: the chip's own fast memory, semaphores


class Product(NamedTuple):
    """A matrix product or convolution."""

    source: str  # as JAX names it
    shape: str  # of its result, "bf16[128,56,56,64]"
    line: str  # "models/resnet.py:40"
    flops: float  # of one execution
    count: int  # type: ignore[assignment]  # executions


def products(module: Module) -> list[Product]:
    """Every matrix product and convolution of the program."""
    found = []
    for instruction, place, times, source in module.walk():
        if instruction.opcode in ("dot", "convolution"):
            flops = _flops(instruction, module.computations[place])
            shape, line = instruction.result[0].text, module.line(instruction)
            found.append(Product(source, shape, line, flops, times))
    return found


def total(found: list[Product]) -> float:
    """Operations of one run of the program."""
    return sum(product.flops * product.count for product in found)


def by_scope(found: list[Product]) -> dict[str, float]:
    """Operations of one run, by `scope`."""
    sums: dict[str, float] = defaultdict(float)
    for product in found:
        sums[scope(product)] += product.flops * product.count
    return sums


def scope(product: Product) -> str:
    """Its name without the last part: a compiler names a product after what it merges with it."""
    return plain(product.source).rpartition("/")[0]


def plain(source: str) -> str:
    """A name without loops, branches and maps over devices, which partitioning adds or takes."""
    parts = (part for part in source.split("/") if part not in WRAPPERS)
    return "/".join(part for part in parts if not part.startswith("branch_"))


def loops_factor(module: Module) -> float:
    """Bytes moved with loops as often as they run, over bytes with every loop once.

    Of every instruction that is no part of a fusion, operands and results count.
    """
    everything = list(module.walk())
    fused = {called for i, *_ in everything for _, called in i.calls if i.opcode == "fusion"}
    often = once = 0
    for instruction, place, times, _ in everything:
        if place not in fused and instruction.opcode not in FREE:
            moved = _moved(instruction, module, place)
            often += moved * times
            once += moved
    return often / once if once else 1.0


def _moved(instruction: Instruction, module: Module, place: str) -> int:
    arrays = list(instruction.result)
    called = dict(instruction.calls).get("calls")
    if instruction.opcode == "fusion" and called:
        inside = module.computations[called]
        root = next(i for i in inside.values() if i.root)
        if root.opcode == "dynamic-update-slice":  # in place
            arrays = list(inside[root.operands[1]].result)
        for parameter in inside.values():
            if parameter.opcode == "parameter":
                arrays += _read(parameter, inside, module)
    elif instruction.opcode in SLICES:
        arrays *= 2
    else:
        for name in instruction.operands:
            arrays += module.computations[place][name].result
    return sum(array.bytes for array in arrays if not ELSEWHERE.search(array.layout))


def _read(parameter: Instruction, inside: dict[str, Instruction], module: Module) -> list[Array]:
    """What a fusion reads of an operand: the slices of it, if it takes nothing else."""
    found: list[Array] = []
    for user in (i for i in inside.values() if parameter.name in i.operands):
        if user.opcode == "bitcast":
            part = _read(user, inside, module)
        elif user.opcode == "fusion":
            called = module.computations[dict(user.calls)["calls"]]
            places = [str(n) for n, name in enumerate(user.operands) if name == parameter.name]
            part = [
                array
                for inner in called.values()
                if inner.opcode == "parameter" and inner.attributes in places
                for array in _read(inner, called, module)
            ]
        elif user.opcode in SLICES and user.operands[0] == parameter.name:
            part = list(user.result)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name:
            part = []
        else:
            return list(parameter.result)
        found += part
    return min(found, list(parameter.result), key=lambda arrays: sum(a.bytes for a in arrays))


def _flops(instruction: Instruction, computation: dict[str, Instruction]) -> float:
    left, right = (computation[name].result[0] for name in instruction.operands[:2])
    if instruction.opcode == "dot":
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        contracted = [left.shape[int(a)] for a in axes.group(1).split(",") if a] if axes else []
        return 2.0 * instruction.result[0].size * math.prod(contracted)
    return _convolution(instruction, left.shape, right.shape)


def _convolution(instruction: Instruction, left: tuple[int, ...], right: tuple[int, ...]) -> float:
    """Multiply-adds that meet no padding and no hole of a dilation, twice."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if labels is None:
        raise ValueError(f"a convolution without labels: {instruction.name}")
    lhs, rhs, out = labels.groups()
    axes = [label for label in out if label.isdigit()]
    window = _window(instruction.attributes, len(axes))
    flops = 2.0 * left[lhs.index("b")] * right[rhs.index("i")] * right[rhs.index("o")]
    flops /= _field("batch_group_count", instruction.attributes)
    for axis in axes:
        fields = {name: values[int(axis)] for name, values in window.items()}
        flops *= _positions(
            left[lhs.index(axis)],
            right[rhs.index(axis)],
            instruction.result[0].shape[out.index(axis)],
            *(fields[name] for name in ("stride", "pad", "lhs_dilate", "rhs_dilate")),
        )
    return flops


def _field(name: str, attributes: str) -> int:
    found = re.search(rf"{name}=(\d+)", attributes)
    return int(found.group(1)) if found else 1


def _window(attributes: str, axes: int) -> dict[str, list[int]]:
    """Stride, low padding and dilations along every axis."""
    fields = {name: [1] * axes for name in ("stride", "lhs_dilate", "rhs_dilate")}
    fields["pad"] = [0] * axes
    found = re.search(r"window=\{([^}]*)\}", attributes)
    for name, text in re.findall(r"(\w+)=(\S+)", found.group(1) if found else ""):
        if name in fields:
            fields[name] = [int(part.split("_")[0]) for part in text.split("x")]
    return fields


@cache
def _positions(n: int, k: int, m: int, stride: int, low: int, spread: int, dilation: int) -> int:
    """Pairs of an output position and a tap that meet an element.

    Args:
      n, k, m: sizes of input, kernel and output.
      low: padding before the input.
      spread, dilation: dilations of input and kernel.
    """
    count = 0
    for tap in range(k):
        # The place is tap * dilation - low + stride * output, and an element each `spread`.
        first = tap * dilation - low
        count += sum(
            1
            for place in range(first, first + stride * m, stride)
            if 0 <= place <= (n - 1) * spread and place % spread == 0
        )
    return count
