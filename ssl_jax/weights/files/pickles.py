"""Plain pickles of nested dictionaries of NumPy arrays, as Haiku's trees are often saved."""

from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from ssl_jax.weights.files import checks, stand_ins, unpickle
from ssl_jax.weights.files.checks import Refused, quote
from ssl_jax.weights.files.stand_ins import Built, Inert, Name, Names

_SEPARATOR = "//"  # Haiku's own between a module, whose name has "/", and its parameter


class DType(Built):
    """Stands for numpy.dtype: a code such as "f4", and afterwards a byte order."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True):
        self.code = "bfloat16" if code == Name("ml_dtypes.bfloat16") else code
        self.order = ""

    def build(self, state: Any) -> None:
        """Takes (version, byte order, subdtype, names, fields, ...)."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise Refused("its pickle has a NumPy dtype of an unknown form")
        if state[2:5] != (None, None, None):
            raise Refused("its pickle has a NumPy dtype of records; only numbers are read")
        self.order = state[1]

    def get(self, what: str) -> np.dtype:
        """The dtype; Refused if it is none of numbers."""
        if self.code == "bfloat16":
            return checks.BFLOAT16
        code = self.code if isinstance(self.code, str) else quote(self.code)
        return checks.number(self.order + code, what)


class Array(Built):
    """Stands for numpy.ndarray, whether filled at once or afterwards."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        """Takes (version, shape, dtype, Fortran order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("its pickle has an array of an unknown form")
        _, shape, dtype, fortran, data = state
        self.fill(shape, dtype, fortran, data)

    def fill(self, shape: Any, dtype: Any, fortran: Any, data: Any) -> None:
        """Sets the value, a view of `data`."""
        what = "an array of its pickle"
        if not isinstance(dtype, DType) or not isinstance(fortran, bool):
            raise Refused(f"{what} has no dtype")
        kind = dtype.get(what)
        if not isinstance(shape, tuple) or not isinstance(data, bytes):
            raise Refused(f"{what} has no bytes of numbers")
        if checks.nbytes(shape, kind, what) != len(data):
            raise Refused(f"{what} of shape {shape} does not fit its {len(data):,} bytes")
        order = "F" if fortran else "C"
        self.value = np.frombuffer(data, kind).reshape(shape, order=order)  # type: ignore[call-overload]


def _reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    return Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    array = Array()
    array.fill(shape, dtype, order == "F", data)
    return array


def _scalar(dtype: Any, data: Any = b"") -> Array | Inert:
    """A number is an array without axes; texts and dates are of no interest."""
    if isinstance(dtype, DType) and isinstance(dtype.code, str) and dtype.code[:1] in "fiub":
        return _frombuffer(data, dtype, (), "C")
    return Inert()


def _encode(text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("its pickle encodes something that is no text as latin1")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise Refused("its pickle has bytes beyond 255") from None


NUMPY: Names = {
    "numpy.dtype": DType,
    "numpy.ndarray": None,
    "ml_dtypes.bfloat16": None,
    "_codecs.encode": _encode,
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _frombuffer for core in ("core", "_core")},
}
"""Stand-ins for what NumPy's arrays refer to."""


def arrays(leaves: Mapping[str, Built]) -> dict[str, np.ndarray]:
    """The arrays among leaves.

    Raises:
      Refused: one was never filled.
    """
    found = {}
    for name, leaf in leaves.items():
        if isinstance(leaf, Array):
            if leaf.value is None:
                raise Refused(f"array {quote(name)} has no content")
            found[name] = leaf.value
    return found


def read(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    """The arrays by their keys, joined by "//".

    Raises:
      Refused: the pickle holds anything but dictionaries of arrays, or refers to code.
    """
    tree = unpickle.load(file, size, {**stand_ins.COMMON, **NUMPY})
    if file.tell() != size:
        raise Refused(f"{size - file.tell():,} bytes trail behind its pickle")
    if not isinstance(tree, dict):
        raise Refused("its pickle is no dictionary of arrays")
    found = arrays(stand_ins.flatten(tree, _SEPARATOR))
    checks.total(sum(array.nbytes for array in found.values()), size)
    return found
