"""Safetensors: eight bytes of length, a JSON header of that length, then the tensors' bytes.

https://github.com/huggingface/safetensors#format
"""

import json
from typing import Any, BinaryIO

import numpy as np

from ssl_jax.weights.files import checks
from ssl_jax.weights.files.checks import Refused, quote

_MAX_HEADER = 1 << 20  # bytes; a thousand tensors need a tenth of it
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
    """The tensors and the header's `__metadata__`.

    Args:
      file: at its start.
      size: of the file in bytes.

    Raises:
      Refused: the header is none, or it and the bytes behind it do not fit exactly.
    """
    header = _header(file, size)
    meta = header.pop("__metadata__", {})
    if not isinstance(meta, dict) or not all(isinstance(v, str) for v in meta.values()):
        raise Refused("header: __metadata__ does not map texts to texts")
    if len(header) > checks.MAX_TENSORS:
        raise Refused(f"header names {len(header):,} tensors, over {checks.MAX_TENSORS:,}")
    entries = [_entry(key, value) for key, value in header.items()]
    entries.sort(key=lambda entry: entry[3:])
    _check_order(entries, size - file.tell())
    arrays = {}
    for key, dtype, shape, start, end in entries:
        arrays[key] = checks.take(file, end - start, f"tensor {key!r}").view(dtype).reshape(shape)
    return arrays, meta


def _header(file: BinaryIO, size: int) -> dict[str, Any]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8:
        raise Refused(f"it ends after {size} bytes, within the header's length")
    if length > min(size - 8, _MAX_HEADER):
        raise Refused(
            f"header claims {length:,} bytes; {size - 8:,} are there, and {_MAX_HEADER:,} are read"
        )
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise Refused("header is nested too deeply") from None
    except ValueError as error:  # of UTF-8 and of JSON alike
        raise Refused(f"header is no JSON in UTF-8 ({error})") from None
    if not isinstance(header, dict):
        raise Refused("header is JSON, but no object of tensors")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Refused(f"header has {quote(key)} twice")
        found[key] = value
    return found


def _entry(key: str, value: Any) -> tuple[str, np.dtype, list[int], int, int]:
    """(name, dtype, shape, start, end), offsets in bytes behind the header."""
    what = f"tensor {quote(checks.name(key))}"
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise Refused(f"{what} is not described by dtype, shape and data_offsets alone")
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise Refused(f"{what} has dtype {quote(kind)}; read are {', '.join(_DTYPES)}")
    if not isinstance(shape, list):
        raise Refused(f"{what} has a shape that is no list of sizes")
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(checks.integer(offset) for offset in offsets)
    ):
        raise Refused(f"{what} has data_offsets that are not two positions")
    start, end = offsets
    needed = checks.nbytes(shape, _DTYPES[kind], what)
    if end - start != needed:
        raise Refused(
            f"{what}: {kind} {shape} needs {needed:,} bytes, its offsets [{start}, {end}] "
            f"span {end - start:,}"
        )
    return key, _DTYPES[kind], shape, start, end


def _check_order(entries: list[tuple[str, np.dtype, list[int], int, int]], length: int) -> None:
    """The sorted tensors must cover the bytes behind the header, each byte once."""
    before, last = "the header", 0
    for key, _, _, start, end in entries:
        if start < last:
            raise Refused(f"tensors {before} and {quote(key)} overlap at byte {start:,}")
        if start > last:
            raise Refused(f"there is a gap of {start - last:,} bytes before tensor {quote(key)}")
        before, last = quote(key), end
    if last > length:
        raise Refused(f"it is cut: tensors end at byte {last:,}, but {length:,} are there")
    if last < length:
        raise Refused(f"{length - last:,} bytes trail behind the last tensor")
