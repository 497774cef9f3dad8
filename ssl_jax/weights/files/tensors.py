"""What the pickles of PyTorch's checkpoints refer to: storages, tensors, and what is beside them.

Source: torch/_utils.py.
"""

from typing import Any, NamedTuple

import numpy as np

from ssl_jax.weights.files import checks, pickles, stand_ins
from ssl_jax.weights.files.checks import Refused, quote
from ssl_jax.weights.files.stand_ins import Built, Inert, Name, Names

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
    """A block of numbers in the file, as a tensor's pickle claims it."""

    key: str
    dtype: np.dtype
    elements: int

    @property
    def nbytes(self) -> int:
        """Its length."""
        return self.elements * self.dtype.itemsize


class Tensor(Built):
    """A view of a storage, which it is known to lie in.

    Raises:
      Refused: it does not, or has more elements than it.
    """

    def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any):
        what = "a tensor of its pickle"
        if not isinstance(storage, Storage):
            raise Refused(f"{what} has no storage")
        what = f"a tensor of storage {quote(storage.key)}"
        if not isinstance(shape, tuple) or not isinstance(stride, tuple):
            raise Refused(f"{what} has no shape and strides")
        if len(shape) != len(stride):
            raise Refused(f"{what} has {len(shape)} axes and {len(stride)} strides")
        count = checks.nbytes(shape, storage.dtype, what) // storage.dtype.itemsize
        if not all(checks.integer(step) for step in (offset, *stride)):
            raise Refused(f"{what} has a negative stride or offset, or one that is no number")
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if count > storage.elements or (count and last >= storage.elements):
            raise Refused(
                f"{what} reaches beyond it: shape {shape}, strides {stride}, offset {offset}, "
                f"and {storage.elements:,} elements are there"
            )
        self.storage, self.offset, self.shape, self.count = storage, offset, shape, count
        # NumPy multiplies the step of an axis of size 1 as well, and it may be anything.
        self.stride = tuple(s if n > 1 else 0 for n, s in zip(shape, stride, strict=True))

    def build(self, state: Any) -> None:
        """Attributes of a tensor are nothing of its weights."""

    @property
    def nbytes(self) -> int:
        """Its length, laid out without gaps."""
        return self.count * self.storage.dtype.itemsize

    def read(self, data: np.ndarray) -> np.ndarray:
        """The tensor in its storage's bytes, uint8; contiguous, so copied if it was not."""
        if not self.count:
            return np.zeros(self.shape, self.storage.dtype)
        dtype = self.storage.dtype
        strides = [step * dtype.itemsize for step in self.stride]
        numbers = data.view(dtype)[self.offset :]
        return np.asarray(np.lib.stride_tricks.as_strided(numbers, self.shape, strides), order="C")


def _parameter(tensor: Any, *rest: Any) -> Any:
    return tensor


NAMES: Names = {
    **stand_ins.COMMON,
    **pickles.NUMPY,
    **dict.fromkeys(_STORAGES),
    "torch._utils._rebuild_tensor": Tensor,
    "torch._utils._rebuild_tensor_v2": Tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": Inert,
    "torch.device": Inert,
    **{f"torch.{kind}{bits}": None for kind in ("float", "int") for bits in (16, 32, 64)},
    "torch.bfloat16": None,
}
"""What they may refer to."""


def persistent(found: Any) -> Storage:
    """The storage of a persistent id: ("storage", class, key, device, elements[, view]).

    Raises:
      Refused: it is none, or of no known dtype.
    """
    if not isinstance(found, tuple) or len(found) not in (5, 6) or found[0] != "storage":
        raise Refused("its pickle refers to something outside that is no storage")
    kind, key, _, count = found[1:5]
    if not isinstance(kind, Name) or kind.dotted not in _STORAGES:
        raise Refused("its pickle has a storage of no known dtype")
    if found[5:] not in ((), (None,)):
        raise Refused("a storage is a view of another: load and save it by PyTorch 1.6 or later")
    if not isinstance(key, str) or not key.isdecimal() or not key.isascii() or len(key) > 20:
        raise Refused(f"its pickle has a storage {quote(key)}, which is no number")
    storage = Storage(key, _STORAGES[kind.dotted], count)
    checks.nbytes((count,), storage.dtype, f"storage {quote(key)}")
    return storage
