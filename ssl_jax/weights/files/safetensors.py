"""Reads safetensors: eight bytes of length, a JSON header of that length, the bytes of the tensors.

Exports write this format with the `safetensors` library, but this module does not read with it:

* The library (0.8) accepts files that must be refused, with repeated or unprintable tensor names,
  unknown fields or NaN. Its errors do not give the position of an overlap or a gap. The checks
  below are needed in any case, so the library could only replace `read_exactly`.
* The library opens the path again to read the tensors, although another file may be there by then.
* Its default backend maps the file into memory. The process dies of SIGBUS if the file shrinks, and
  its resident memory peaks at twice the size of the tensors. Here the peak is their size.
* Its dtypes are no advantage: with NumPy it reads bfloat16, as this module does, but not float8.

Source: https://github.com/huggingface/safetensors#format
"""

import json
from typing import Any, BinaryIO

import numpy as np

from ssl_jax.weights.files import checks
from ssl_jax.weights.files.checks import Refused, quote

_MAX_HEADER = 1 << 20  # bytes; a thousand tensors need a tenth of this
_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": checks.BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read(file: BinaryIO, size: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns (tensors by name, the header's `__metadata__`).

    Args:
      file: open file, positioned at its start.
      size: size of the file in bytes.

    Raises:
      Refused: if the header is invalid, or if its tensors do not cover the rest of the file
        exactly.
    """
    header = _read_header(file, size)
    meta = header.pop("__metadata__", {})
    if not isinstance(meta, dict) or not all(isinstance(v, str) for v in meta.values()):
        raise Refused("header: __metadata__ does not map strings to strings")
    if len(header) > checks.MAX_TENSORS:
        raise Refused(f"header names {len(header):,} tensors, over {checks.MAX_TENSORS:,}")
    entries = [_parse_entry(name, value) for name, value in header.items()]
    entries.sort(key=lambda entry: entry[3:])
    _check_coverage(entries, size - file.tell())
    arrays = {}
    for name, dtype, shape, start, end in entries:
        data = checks.read_exactly(file, end - start, f"tensor {name!r}")
        arrays[name] = data.view(dtype).reshape(shape)
    return arrays, meta


def _read_header(file: BinaryIO, size: int) -> dict[str, Any]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8:
        raise Refused(f"it ends after {size} bytes, within the length of the header")
    if length > min(size - 8, _MAX_HEADER):
        raise Refused(
            f"header claims {length:,} bytes; the file has {size - 8:,} after the length, and the "
            f"limit is {_MAX_HEADER:,}"
        )
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique_keys)
    except RecursionError:
        raise Refused("header is nested too deeply") from None
    except ValueError as error:  # invalid UTF-8 and invalid JSON both raise it
        raise Refused(f"header is not JSON in UTF-8 ({error})") from None
    if not isinstance(header, dict):
        raise Refused("header is JSON, but not an object of tensors")
    return header


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items: dict[str, Any] = {}
    for key, value in pairs:
        if key in items:
            raise Refused(f"header has {quote(key)} twice")
        items[key] = value
    return items


def _parse_entry(name: str, value: Any) -> tuple[str, np.dtype, list[int], int, int]:
    """Returns (name, dtype, shape, start, end); start and end count bytes after the header."""
    what = f"tensor {quote(checks.check_name(name))}"
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise Refused(f"{what} must have exactly the fields dtype, shape and data_offsets")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise Refused(f"{what} has dtype {quote(code)}; supported are {', '.join(_DTYPES)}")
    if not isinstance(shape, list):
        raise Refused(f"{what} has a shape that is not a list of sizes")
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(checks.is_size(offset) for offset in offsets)
    ):
        raise Refused(f"{what} has data_offsets that are not two positions")
    start, end = offsets
    needed = checks.nbytes(shape, _DTYPES[code], what)
    if end - start != needed:
        raise Refused(
            f"{what}: {code} {shape} needs {needed:,} bytes, its offsets [{start}, {end}] "
            f"span {end - start:,}"
        )
    return name, _DTYPES[code], shape, start, end


def _check_coverage(entries: list[tuple[str, np.dtype, list[int], int, int]], length: int) -> None:
    """Checks that the sorted tensors cover each of the `length` bytes after the header once."""
    previous, covered = "the header", 0
    for name, _, _, start, end in entries:
        if start < covered:
            raise Refused(f"tensors {previous} and {quote(name)} overlap at byte {start:,}")
        if start > covered:
            message = f"there is a gap of {start - covered:,} bytes before tensor {quote(name)}"
            raise Refused(message)
        previous, covered = quote(name), end
    if covered > length:
        raise Refused(f"it is cut: tensors end at byte {covered:,}, but the file has {length:,}")
    if covered < length:
        raise Refused(f"{length - covered:,} bytes follow after the last tensor")
