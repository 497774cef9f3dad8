"""Reads PyTorch checkpoints without PyTorch: the zip format and the legacy format before 1.6.

Both formats hold a pickle and the bytes of storages. Tensors in the pickle refer to storages by
persistent ids.

Source: torch/serialization.py.
"""

import io
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from ssl_jax.weights.files import checks, pickles, placeholders, torch_tensors, unpickle
from ssl_jax.weights.files.archive import Archive
from ssl_jax.weights.files.checks import Refused, quote

LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""First bytes of a legacy file: a pickle of the magic number."""

_LEGACY_PROTOCOL = 1001
_MAX_PICKLE = 16 << 20  # bytes
# Keys that hold the weights in checkpoints. DINO's paper evaluates its teacher.
_WEIGHT_KEYS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "teacher")


def is_zip(archive: Archive) -> bool:
    """Returns True if PyTorch wrote the archive."""
    return any(entry.split("/")[-1] == "data.pkl" for entry in archive.entries)


def read_zip(archive: Archive) -> dict[str, np.ndarray]:
    """Returns the tensors of a checkpoint in the zip format, by name.

    Raises:
      Refused: if the pickle refers to anything but tensors, or a tensor refers to a storage that
        is missing or has another size.
    """
    if any(entry.split("/")[-1] == "constants.pkl" for entry in archive.entries):
        raise Refused("it is a TorchScript program; save its state_dict() instead")
    roots = [e.removesuffix("data.pkl") for e in archive.entries if e.endswith("data.pkl")]
    if len(roots) != 1 or roots[0].count("/") > 1:
        raise Refused("its archive does not have exactly one data.pkl")
    root, length = roots[0], archive.entries[f"{roots[0]}data.pkl"].file_size
    if length > _MAX_PICKLE:
        raise Refused(f"data.pkl claims {length:,} bytes, over {_MAX_PICKLE:,}")
    file = io.BytesIO(archive.read(f"{root}data.pkl").tobytes())
    big_endian = _is_big_endian(archive, f"{root}byteorder")
    tree = unpickle.load(file, length, torch_tensors.TORCH_NAMES, torch_tensors.storage_from_id)

    def storage_bytes(storage: torch_tensors.Storage) -> np.ndarray:
        entry = f"{root}data/{storage.key}"
        if entry not in archive.entries:
            raise Refused(f"storage {quote(storage.key)} is missing")
        if archive.entries[entry].file_size != storage.nbytes:
            raise Refused(
                f"storage {quote(storage.key)} has {archive.entries[entry].file_size:,} bytes, "
                f"its tensors claim {storage.nbytes:,}"
            )
        data = archive.read(entry)
        width = storage.dtype.itemsize
        return data.view(f"u{width}").byteswap().view(np.uint8) if big_endian else data

    return _arrays(tree, archive.size, storage_bytes)


def _is_big_endian(archive: Archive, entry: str) -> bool:
    """Returns True if the entry says "big". PyTorch before 2.1 does not write the entry."""
    if entry not in archive.entries:
        return False
    if archive.entries[entry].file_size > 6:
        raise Refused("its byteorder is neither little nor big")
    order = archive.read(entry).tobytes()
    if order not in (b"little", b"big"):
        raise Refused(f"its byteorder is {quote(order.decode('latin-1'))}, not little or big")
    return order == b"big"


def read_legacy(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    """Returns the tensors of a checkpoint in the legacy format, by name.

    Args:
      file: open file.
      size: size of the file in bytes.

    Raises:
      Refused: if the pickle refers to anything but tensors, or a tensor refers to a storage that
        is missing or has another size.
    """
    file.seek(len(LEGACY))
    if unpickle.load(file, size, {}) != _LEGACY_PROTOCOL:
        raise Refused(f"its protocol is not {_LEGACY_PROTOCOL}")
    unpickle.load(file, size, {})  # skips the description of the system that wrote the file
    storages: dict[str, torch_tensors.Storage] = {}

    def persistent_load(identifier: Any) -> torch_tensors.Storage:
        storage = torch_tensors.storage_from_id(identifier)
        if storages.setdefault(storage.key, storage) != storage:
            raise Refused(f"storage {quote(storage.key)} has two different sizes or dtypes")
        return storage

    tree = unpickle.load(file, size, torch_tensors.TORCH_NAMES, persistent_load)
    keys = unpickle.load(file, size, {})
    starts = _storage_starts(file, size, keys, storages)

    def storage_bytes(storage: torch_tensors.Storage) -> np.ndarray:
        if storage.key not in starts:
            raise Refused(f"storage {quote(storage.key)} is missing")
        file.seek(starts[storage.key])
        return checks.read_exactly(file, storage.nbytes, f"storage {quote(storage.key)}")

    return _arrays(tree, size, storage_bytes)


def _storage_starts(
    file: BinaryIO, size: int, keys: Any, storages: dict[str, torch_tensors.Storage]
) -> dict[str, int]:
    """Returns the position of each storage's bytes; the last storage must end with the file."""
    starts: dict[str, int] = {}
    for key in keys if isinstance(keys, list) else ():
        if not isinstance(key, str) or key not in storages or key in starts:
            raise Refused(f"it has a storage {quote(key)} that no tensor uses or that occurs twice")
        count = int.from_bytes(file.read(8), "little")
        if count != storages[key].elements:
            raise Refused(
                f"storage {quote(key)} has {count:,} elements, its tensors claim "
                f"{storages[key].elements:,}"
            )
        starts[key] = file.tell()
        if storages[key].nbytes > size - starts[key]:
            raise Refused(f"it is cut in storage {quote(key)}")
        file.seek(storages[key].nbytes, 1)
    if file.tell() != size:
        raise Refused(f"{size - file.tell():,} bytes follow after the last storage")
    return starts


def _arrays(
    tree: Any, size: int, storage_bytes: Callable[[torch_tensors.Storage], np.ndarray]
) -> dict[str, np.ndarray]:
    leaves = placeholders.flatten(_state_dict(tree), ".")
    arrays = pickles.numpy_arrays(leaves)
    views = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, torch_tensors.Tensor)}
    if not views and not arrays:
        keys = ", ".join(quote(key) for key in list(tree)[:10])
        raise Refused(f"it holds no tensors by name; its top-level keys are: {keys or 'none'}")
    view_bytes = sum(view.nbytes for view in views.values())
    checks.check_total_size(view_bytes + sum(array.nbytes for array in arrays.values()), size)
    data: dict[str, np.ndarray] = {}
    for name, view in views.items():
        key = view.storage.key
        if key not in data:
            data[key] = storage_bytes(view.storage)
        if len(data[key]) != view.storage.nbytes:
            raise Refused(f"storage {quote(key)} has two different sizes")
        arrays[name] = view.read(data[key])
    return arrays


def _state_dict(tree: Any) -> dict[str, Any]:
    """Returns the dictionary of weights; a checkpoint may hold an optimizer's state beside it."""
    if not isinstance(tree, dict):
        raise Refused("it is not a dictionary of tensors; save the model's state_dict()")
    for _ in _WEIGHT_KEYS:
        inner = (tree[key] for key in _WEIGHT_KEYS if isinstance(tree.get(key), dict))
        tree = next(inner, tree)
    return tree
