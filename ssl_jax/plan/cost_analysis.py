"""Counts the FLOPs of matrix products and convolutions in a program's HLO.

XLA's own cost analysis counts a loop's body once. Here a body counts as often as it runs.
"""

import math
import re
from collections import defaultdict
from functools import cache
from typing import NamedTuple

from ssl_jax.plan.hlo import Instruction, Module

WRAPPERS = {"while", "body", "closed_call", "checkpoint", "cond", "shard_map"}


class Product(NamedTuple):
    """A matrix product or convolution.

    Attributes:
      source: JAX's name of the operation.
      shape: its result: "bf16[128,56,56,64]".
      line: source line: "models/resnet.py:40".
      flops: FLOPs of one execution.
      count: executions in one run of the program.
    """

    source: str
    shape: str
    line: str
    flops: float
    count: int  # type: ignore[assignment]


def find_products(module: Module) -> list[Product]:
    """Returns every matrix product and convolution of the program."""
    products = []
    for instruction, computation, count, source in module.walk():
        if instruction.opcode in ("dot", "convolution"):
            flops = _flops(instruction, module.computations[computation])
            shape, line = instruction.result[0].text, module.line(instruction)
            products.append(Product(source, shape, line, flops, count))
    return products


def total_flops(products: list[Product]) -> float:
    """Returns the FLOPs of one run of the program."""
    return sum(product.flops * product.count for product in products)


def flops_by_scope(products: list[Product]) -> dict[str, float]:
    """Returns the FLOPs of one run, summed by `scope`."""
    sums: dict[str, float] = defaultdict(float)
    for product in products:
        sums[scope(product)] += product.flops * product.count
    return sums


def scope(product: Product) -> str:
    """Returns the product's name without its last part.

    The last part is unreliable: a compiler renames a product after what it merges with it.
    """
    return strip_wrappers(product.source).rpartition("/")[0]


def strip_wrappers(source: str) -> str:
    """Returns a name without loops, branches and maps over devices.

    Partitioning a program adds and removes these parts, so names are compared without them.
    """
    parts = (part for part in source.split("/") if part not in WRAPPERS)
    return "/".join(part for part in parts if not part.startswith("branch_"))


def _flops(instruction: Instruction, computation: dict[str, Instruction]) -> float:
    left, right = (computation[name].result[0] for name in instruction.operands[:2])
    if instruction.opcode == "dot":
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        contracted = [left.shape[int(a)] for a in axes.group(1).split(",") if a] if axes else []
        return 2.0 * instruction.result[0].size * math.prod(contracted)
    return _convolution_flops(instruction, left.shape, right.shape)


def _convolution_flops(
    instruction: Instruction, left: tuple[int, ...], right: tuple[int, ...]
) -> float:
    """Returns twice the multiply-adds that touch neither padding nor a hole of a dilation."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if labels is None:
        raise ValueError(f"HLO convolution {instruction.name} has no dim_labels")
    lhs, rhs, out = labels.groups()
    axes = [label for label in out if label.isdigit()]
    window = _window(instruction.attributes, len(axes))
    flops = 2.0 * left[lhs.index("b")] * right[rhs.index("i")] * right[rhs.index("o")]
    flops /= _integer_attribute("batch_group_count", instruction.attributes)
    for axis in axes:
        fields = {name: values[int(axis)] for name, values in window.items()}
        flops *= _element_tap_pairs(
            left[lhs.index(axis)],
            right[rhs.index(axis)],
            instruction.result[0].shape[out.index(axis)],
            *(fields[name] for name in ("stride", "pad", "lhs_dilate", "rhs_dilate")),
        )
    return flops


def _integer_attribute(name: str, attributes: str) -> int:
    match = re.search(rf"{name}=(\d+)", attributes)
    return int(match.group(1)) if match else 1


def _window(attributes: str, axes: int) -> dict[str, list[int]]:
    """Returns stride, low padding and dilations along every axis."""
    fields = {name: [1] * axes for name in ("stride", "lhs_dilate", "rhs_dilate")}
    fields["pad"] = [0] * axes
    window = re.search(r"window=\{([^}]*)\}", attributes)
    for name, text in re.findall(r"(\w+)=(\S+)", window.group(1) if window else ""):
        if name in fields:
            fields[name] = [int(part.split("_")[0]) for part in text.split("x")]
    return fields


@cache
def _element_tap_pairs(
    n: int, k: int, m: int, stride: int, low: int, input_dilation: int, kernel_dilation: int
) -> int:
    """Returns the number of (output position, kernel tap) pairs that meet an input element.

    Args:
      n, k, m: sizes of input, kernel and output.
      low: padding before the input.
    """
    count = 0
    for tap in range(k):
        # Output o reads place tap * kernel_dilation - low + stride * o of the dilated input.
        first = tap * kernel_dilation - low
        count += sum(
            1
            for place in range(first, first + stride * m, stride)
            if 0 <= place <= (n - 1) * input_dilation and place % input_dilation == 0
        )
    return count
