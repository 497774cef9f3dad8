"""Reads TensorFlow checkpoints (PREFIX.index and PREFIX.data-00000-of-00001) with TensorFlow."""

import math
import pathlib
import re
from typing import Any

import numpy as np

from ssl_jax.weights.files import checks
from ssl_jax.weights.files.checks import Refused, quote

_DATA = re.compile(r"\.data-\d{5}-of-\d{5}")
_LATEST = re.compile(rb'^model_checkpoint_path: "([ !#-\[\]-~]{1,512})"', re.MULTILINE)
_NUMERIC = {"float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"}
_VARIABLE = "/.ATTRIBUTES/VARIABLE_VALUE"  # suffix of variables in TensorFlow 2's checkpoints
# Names of optimizer slots, optimizers and counters.
_SLOTS = re.compile(
    r"/(Momentum|momentum|LARS\w*|Adam(_\d)?|RMSProp(_\d)?|ExponentialMovingAverage)(:0)?$"
    r"|/\.OPTIMIZER_SLOT/|(^|/)(optimizer|_optimizer)/|(^|/)(LARS|Momentum|Adam)\w*Optimizer"
    r"|(^|/)(global_step|save_counter|beta[12]_power)$"
)


def prefix(path: pathlib.Path) -> pathlib.Path | None:
    """Returns the prefix of the checkpoint at `path`, or None if there is no checkpoint.

    Args:
      path: the prefix, one of the checkpoint's files, or a folder with a file `checkpoint`.

    Raises:
      Refused: if a folder has no file `checkpoint`, or if that file names no checkpoint.
    """
    if path.is_dir():
        return _latest(path)
    if path.suffix == ".index" and path.exists():
        return path.with_suffix("")
    if _DATA.fullmatch(path.suffix) and path.exists():
        return path.with_suffix("")
    return path if not path.exists() and path.with_name(f"{path.name}.index").exists() else None


def _latest(folder: pathlib.Path) -> pathlib.Path:
    file = folder / "checkpoint"
    if not file.is_file():
        raise Refused("it is a folder without a file `checkpoint`, so not a TensorFlow checkpoint")
    with file.open("rb") as stream:
        match = _LATEST.search(stream.read(1 << 16))
    if not match:
        raise Refused("its file `checkpoint` has no model_checkpoint_path")
    # Only the last part of the path is used: the folder may have been moved, and a file must not
    # make this reader open another folder.
    return folder / pathlib.PurePosixPath(match[1].decode("ascii")).name


def read(prefix: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the variables by name, without those of optimizers and counters.

    Raises:
      Refused: if a file is missing or damaged, or claims more bytes than the data files hold.
    """
    index = prefix.with_name(f"{prefix.name}.index")
    if not index.is_file():
        raise Refused(f"{index.name} is missing beside it")
    data = prefix.parent.glob(f"{_escape(prefix.name)}.data-*")
    size = sum(file.stat().st_size for file in data if file.is_file())
    if not size:
        raise Refused(f"{prefix.name}.data-* are missing beside {index.name}")
    import tensorflow as tf

    try:
        return _variables(tf.train.load_checkpoint(str(prefix)), size)
    except (tf.errors.OpError, LookupError, RuntimeError, ValueError, TypeError) as error:
        first = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise Refused(f"TensorFlow cannot read it: {first[:300]}") from None


def _variables(reader: Any, size: int) -> dict[str, np.ndarray]:
    dtypes = reader.get_variable_to_dtype_map()
    shapes = {
        name: shape
        for name, shape in reader.get_variable_to_shape_map().items()
        if dtypes[name].name in _NUMERIC and not _SLOTS.search(name.removesuffix(_VARIABLE))
    }
    if len(shapes) > checks.MAX_TENSORS:
        raise Refused(f"it has {len(shapes):,} variables, over {checks.MAX_TENSORS:,}")
    claimed = 0
    for name, shape in shapes.items():
        if len(shape) > checks.MAX_RANK or any(n < 0 for n in shape):
            raise Refused(f"variable {quote(name)} has an invalid shape")
        claimed += math.prod(shape) * dtypes[name].size
    # Check first: TensorFlow allocates what the index claims before it reads the data.
    if claimed > size:
        raise Refused(f"its variables claim {claimed:,} bytes; the data files have {size:,}")
    return {
        checks.check_name(name).removesuffix(_VARIABLE): np.asarray(reader.get_tensor(name))
        for name in sorted(shapes)
    }


def _escape(name: str) -> str:
    """Escapes the wildcards of glob."""
    return re.sub(r"([*?[])", r"[\1]", name)
