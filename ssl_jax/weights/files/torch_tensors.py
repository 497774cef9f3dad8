"""Placeholders for the storages and tensors in the pickles of PyTorch checkpoints.

Source: torch/_utils.py.
"""

from typing import Any, NamedTuple

import numpy as np

from ssl_jax.weights.files import checks, pickles, placeholders
from ssl_jax.weights.files.checks import Refused, quote
from ssl_jax.weights.files.placeholders import AllowedNames, Buildable, GlobalName, Ignored

_STORAGES = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": checks.BFLOAT16,
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}


class Storage(NamedTuple):
    """A block of numbers in the file, as the pickle describes it."""

    key: str
    dtype: np.dtype
    elements: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.elements * self.dtype.itemsize


class Tensor(Buildable):
    """Placeholder for a tensor: a view that lies within its storage.

    Args:
      storage: the storage that holds the elements.
      offset: first element.
      shape: sizes of the axes.
      stride: steps of the axes in elements.
      requires_grad, hooks: ignored.
      bits: {"neg": True} for a tensor that PyTorch stores with the opposite sign, as the imaginary
        part of a conjugate.

    Raises:
      Refused: if the view is invalid, reaches beyond its storage, or has more elements than the
        storage, or for other bits, such as that of a conjugate.
    """

    def __init__(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        stride: Any,
        requires_grad: Any = None,
        hooks: Any = None,
        bits: Any = None,
    ):
        del requires_grad, hooks
        what = "a tensor of its pickle"
        if not isinstance(storage, Storage):
            raise Refused(f"{what} has no storage")
        what = f"a tensor of storage {quote(storage.key)}"
        if not isinstance(shape, tuple) or not isinstance(stride, tuple):
            raise Refused(f"{what} has no shape and strides")
        if len(shape) != len(stride):
            raise Refused(f"{what} has {len(shape)} axes and {len(stride)} strides")
        count = checks.nbytes(shape, storage.dtype, what) // storage.dtype.itemsize
        if not all(checks.is_size(step) for step in (offset, *stride)):
            raise Refused(f"{what} has a stride or offset that is negative or not an integer")
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if count > storage.elements or (count and last >= storage.elements):
            raise Refused(
                f"{what} reaches beyond it: shape {shape}, strides {stride}, offset {offset}, "
                f"but the storage has {storage.elements:,} elements"
            )
        if bits not in (None, {}, {"neg": True}) or (bits and storage.dtype == np.bool_):
            raise Refused(f"{what} has bits that are not supported; save a clone() of it")
        self.negative = bool(bits)
        self.storage, self.offset, self.shape, self.count = storage, offset, shape, count
        # The step of an axis of size 1 can be any number, and NumPy would multiply it.
        self.stride = tuple(s if n > 1 else 0 for n, s in zip(shape, stride, strict=True))

    def build(self, state: Any) -> None:
        """Ignores the state, since attributes of a tensor are not weights."""

    @property
    def nbytes(self) -> int:
        """Size in bytes of the tensor as a contiguous array."""
        return self.count * self.storage.dtype.itemsize

    def read(self, data: np.ndarray) -> np.ndarray:
        """Returns the tensor as a C-contiguous array; copies only if necessary.

        Args:
          data: bytes of the storage, uint8 [storage.nbytes].
        """
        if not self.count:
            return np.zeros(self.shape, self.storage.dtype)
        dtype = self.storage.dtype
        strides = [step * dtype.itemsize for step in self.stride]
        numbers = data.view(dtype)[self.offset :]
        view = np.lib.stride_tricks.as_strided(numbers, self.shape, strides)
        return np.asarray(np.negative(view) if self.negative else view, order="C")


def _parameter(tensor: Any, *rest: Any) -> Any:
    return tensor


TORCH_NAMES: AllowedNames = {
    **placeholders.COMMON_NAMES,
    **pickles.NUMPY_NAMES,
    **dict.fromkeys(_STORAGES),
    "torch._utils._rebuild_tensor": Tensor,
    "torch._utils._rebuild_tensor_v2": Tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": Ignored,
    "torch.device": Ignored,
    **{f"torch.{kind}{bits}": None for kind in ("float", "int") for bits in (16, 32, 64)},
    "torch.bfloat16": None,
}
"""Names that the pickles of PyTorch checkpoints may refer to."""


def storage_from_id(identifier: Any) -> Storage:
    """Returns the storage of a persistent id ("storage", class, key, device, elements[, view]).

    Raises:
      Refused: if the id is not that of a storage, or if its dtype is unknown.
    """
    if (
        not isinstance(identifier, tuple)
        or len(identifier) not in (5, 6)
        or identifier[0] != "storage"
    ):
        raise Refused("its pickle refers to an external object that is not a storage")
    storage_class, key, _, count = identifier[1:5]
    if not isinstance(storage_class, GlobalName) or storage_class.dotted not in _STORAGES:
        raise Refused("its pickle has a storage of unknown dtype")
    if identifier[5:] not in ((), (None,)):
        raise Refused("a storage is a view of another: load and save it with PyTorch 1.6 or later")
    if not isinstance(key, str) or not key.isdecimal() or not key.isascii() or len(key) > 20:
        raise Refused(f"its pickle has a storage {quote(key)}, which is not a number")
    storage = Storage(key, _STORAGES[storage_class.dotted], count)
    checks.nbytes((count,), storage.dtype, f"storage {quote(key)}")
    return storage
