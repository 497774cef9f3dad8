"""PyTorch's checkpoints, without PyTorch: the zip format, and the one before version 1.6.

Either is a pickle, whose tensors name storages by persistent ids, and the storages' bytes. Source:
torch/serialization.py.
"""

import io
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from ssl_jax.weights.files import checks, pickles, stand_ins, tensors, unpickle
from ssl_jax.weights.files.archive import Archive
from ssl_jax.weights.files.checks import Refused, quote

LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""How files of the format before 1.6 start: a pickle of the magic number."""

_LEGACY_PROTOCOL = 1001
_MAX_PICKLE = 16 << 20  # bytes
# Where checkpoints keep the weights; DINO's teacher is the network that its paper evaluates.
_LEVELS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "teacher")


def is_zip(archive: Archive) -> bool:
    """Whether PyTorch wrote the archive."""
    return any(entry.split("/")[-1] == "data.pkl" for entry in archive.entries)


def read_zip(archive: Archive) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint in the zip format, by name.

    Raises:
      Refused: the pickle refers to anything but tensors, or tensors to what is not there.
    """
    if any(entry.split("/")[-1] == "constants.pkl" for entry in archive.entries):
        raise Refused("it is a TorchScript program; save its state_dict() and read that")
    tops = [e.removesuffix("data.pkl") for e in archive.entries if e.endswith("data.pkl")]
    if len(tops) != 1 or tops[0].count("/") > 1:
        raise Refused("its archive does not have exactly one data.pkl")
    top, length = tops[0], archive.entries[f"{tops[0]}data.pkl"].file_size
    if length > _MAX_PICKLE:
        raise Refused(f"data.pkl claims {length:,} bytes, over {_MAX_PICKLE:,}")
    file = io.BytesIO(archive.read(f"{top}data.pkl").tobytes())
    swap = _is_big(archive, f"{top}byteorder")
    tree = unpickle.load(file, length, tensors.NAMES, tensors.persistent)

    def storage_bytes(storage: tensors.Storage) -> np.ndarray:
        entry = f"{top}data/{storage.key}"
        if entry not in archive.entries:
            raise Refused(f"storage {quote(storage.key)} is missing")
        if archive.entries[entry].file_size != storage.nbytes:
            raise Refused(
                f"storage {quote(storage.key)} has {archive.entries[entry].file_size:,} bytes, "
                f"its tensors claim {storage.nbytes:,}"
            )
        data = archive.read(entry)
        width = storage.dtype.itemsize
        return data.view(f"u{width}").byteswap().view(np.uint8) if swap else data

    return _arrays(tree, archive.size, storage_bytes)


def _is_big(archive: Archive, entry: str) -> bool:
    """Whether numbers start with their highest byte; there is no such entry before 2.1."""
    if entry not in archive.entries:
        return False
    if archive.entries[entry].file_size > 6:
        raise Refused("its byteorder is neither little nor big")
    order = archive.read(entry).tobytes()
    if order not in (b"little", b"big"):
        raise Refused(f"its byteorder is {quote(order.decode('latin-1'))}, not little or big")
    return order == b"big"


def read_legacy(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint in the format before 1.6, by name.

    Raises:
      Refused: as for the zip format.
    """
    file.seek(len(LEGACY))
    if unpickle.load(file, size, {}) != _LEGACY_PROTOCOL:
        raise Refused(f"its protocol is not {_LEGACY_PROTOCOL}")
    unpickle.load(file, size, {})  # of the system that wrote it
    storages: dict[str, tensors.Storage] = {}

    def persistent(found: Any) -> tensors.Storage:
        storage = tensors.persistent(found)
        if storages.setdefault(storage.key, storage) != storage:
            raise Refused(f"storage {quote(storage.key)} is claimed in two sizes or dtypes")
        return storage

    tree = unpickle.load(file, size, tensors.NAMES, persistent)
    keys = unpickle.load(file, size, {})
    starts = _storage_starts(file, size, keys, storages)

    def storage_bytes(storage: tensors.Storage) -> np.ndarray:
        if storage.key not in starts:
            raise Refused(f"storage {quote(storage.key)} is missing")
        file.seek(starts[storage.key])
        return checks.take(file, storage.nbytes, f"storage {quote(storage.key)}")

    return _arrays(tree, size, storage_bytes)


def _storage_starts(
    file: BinaryIO, size: int, keys: Any, storages: dict[str, tensors.Storage]
) -> dict[str, int]:
    """Where each storage's bytes start; they must reach to the end of the file."""
    starts: dict[str, int] = {}
    for key in keys if isinstance(keys, list) else ():
        if not isinstance(key, str) or key not in storages or key in starts:
            raise Refused(f"it has a storage {quote(key)} that no tensor or another one claims")
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
        raise Refused(f"{size - file.tell():,} bytes trail behind the last storage")
    return starts


def _arrays(
    tree: Any, size: int, storage_bytes: Callable[[tensors.Storage], np.ndarray]
) -> dict[str, np.ndarray]:
    leaves = stand_ins.flatten(_state_dict(tree), ".")
    arrays = pickles.arrays(leaves)
    views = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, tensors.Tensor)}
    if not views and not arrays:
        tops = ", ".join(quote(key) for key in list(tree)[:10])
        raise Refused(f"it holds no tensors by name; at its top are: {tops or 'nothing'}")
    held = sum(view.nbytes for view in views.values())
    checks.total(held + sum(array.nbytes for array in arrays.values()), size)
    data: dict[str, np.ndarray] = {}
    for name, view in views.items():
        key = view.storage.key
        if key not in data:
            data[key] = storage_bytes(view.storage)
        if len(data[key]) != view.storage.nbytes:
            raise Refused(f"storage {quote(key)} is claimed in two sizes")
        arrays[name] = view.read(data[key])
    return arrays


def _state_dict(tree: Any) -> dict[str, Any]:
    """The weights in a checkpoint, which may hold an optimizer's state and more beside them."""
    if not isinstance(tree, dict):
        raise Refused("it is no dictionary of tensors; save the model's state_dict()")
    for _ in _LEVELS:
        inner = (tree[level] for level in _LEVELS if isinstance(tree.get(level), dict))
        tree = next(inner, tree)
    return tree
