"""Reads plain pickles of nested dictionaries of NumPy arrays, the usual format of Haiku's trees."""

from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from ssl_jax.weights.files import checks, placeholders, unpickle
from ssl_jax.weights.files.checks import Refused, quote
from ssl_jax.weights.files.placeholders import AllowedNames, Buildable, GlobalName, Ignored

_SEPARATOR = "//"  # Haiku's separator of module and parameter; names of modules contain "/"


class DType(Buildable):
    """Placeholder for numpy.dtype; the pickle gives a code such as "f4", then the byte order."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True):
        self.code = "bfloat16" if code == GlobalName("ml_dtypes.bfloat16") else code
        self.order = ""

    def build(self, state: Any) -> None:
        """Sets the state: (version, byte order, subdtype, names, fields, ...)."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise Refused("its pickle has a NumPy dtype of an unknown form")
        if state[2:5] != (None, None, None):
            raise Refused("its pickle has a NumPy dtype of records; only numbers are supported")
        self.order = state[1]

    def get(self, what: str) -> np.dtype:
        """Returns the dtype.

        Raises:
          Refused: if the dtype is not numeric.
        """
        if self.code == "bfloat16":
            return checks.BFLOAT16
        code = self.code if isinstance(self.code, str) else quote(self.code)
        return checks.numeric_dtype(self.order + code, what)


class Array(Buildable):
    """Placeholder for numpy.ndarray; `value` is None until the pickle sets the state."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        """Sets the state: (version, shape, dtype, Fortran order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("its pickle has an array of an unknown form")
        _, shape, dtype, fortran, data = state
        self.fill(shape, dtype, fortran, data)

    def fill(self, shape: Any, dtype: Any, fortran: Any, data: Any) -> None:
        """Sets the value to a view of `data`.

        Raises:
          Refused: if shape, dtype and data do not fit.
        """
        what = "an array of its pickle"
        if not isinstance(dtype, DType) or not isinstance(fortran, bool):
            raise Refused(f"{what} has no dtype")
        numpy_dtype = dtype.get(what)
        if not isinstance(shape, tuple) or not isinstance(data, bytes):
            raise Refused(f"{what} has no bytes of numbers")
        if checks.nbytes(shape, numpy_dtype, what) != len(data):
            raise Refused(f"{what} of shape {shape} does not fit its {len(data):,} bytes")
        order = "F" if fortran else "C"
        flat = np.frombuffer(data, numpy_dtype)
        self.value = flat.reshape(shape, order=order)  # type: ignore[call-overload]


def _reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    return Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    array = Array()
    array.fill(shape, dtype, order == "F", data)
    return array


def _scalar(dtype: Any, data: Any = b"") -> Array | Ignored:
    """Returns a number as an array of rank 0; ignores texts and dates."""
    if isinstance(dtype, DType) and isinstance(dtype.code, str) and dtype.code[:1] in "fiub":
        return _frombuffer(data, dtype, (), "C")
    return Ignored()


def _encode(text: Any, encoding: Any) -> bytes:
    """Placeholder for _codecs.encode, which protocol 2 uses for bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("its pickle calls _codecs.encode with other than a text and latin1")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise Refused("its pickle has bytes beyond 255") from None


def _empty_bytes() -> bytes:
    """Placeholder for bytes(), which protocol 2 uses for empty bytes."""
    return b""


NUMPY_NAMES: AllowedNames = {
    "numpy.dtype": DType,
    "numpy.ndarray": None,
    "ml_dtypes.bfloat16": None,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _empty_bytes,
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _frombuffer for core in ("core", "_core")},
}
"""Names that pickled NumPy arrays refer to."""


def numpy_arrays(leaves: Mapping[str, Buildable]) -> dict[str, np.ndarray]:
    """Returns the NumPy arrays among the leaves.

    Raises:
      Refused: if the pickle never set the state of an array.
    """
    arrays = {}
    for name, leaf in leaves.items():
        if isinstance(leaf, Array):
            if leaf.value is None:
                raise Refused(f"array {quote(name)} has no content")
            arrays[name] = leaf.value
    return arrays


def read(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    """Returns the arrays by their keys, joined with "//".

    Args:
      file: open file, positioned at its start.
      size: size of the file in bytes.

    Raises:
      Refused: if the pickle is not a dictionary of arrays, or refers to code.
    """
    tree = unpickle.load(file, size, {**placeholders.COMMON_NAMES, **NUMPY_NAMES})
    if file.tell() != size:
        raise Refused(f"{size - file.tell():,} bytes follow after its pickle")
    if not isinstance(tree, dict):
        raise Refused("its pickle is not a dictionary of arrays")
    arrays = numpy_arrays(placeholders.flatten(tree, _SEPARATOR))
    checks.check_total_size(sum(array.nbytes for array in arrays.values()), size)
    return arrays
