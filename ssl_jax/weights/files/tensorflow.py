"""TensorFlow's checkpoints: PREFIX.index beside PREFIX.data-00000-of-00001, read by TensorFlow."""

import math
import pathlib
import re
from typing import Any

import numpy as np

from ssl_jax.weights.files import checks
from ssl_jax.weights.files.checks import Refused, quote

_DATA = re.compile(r"\.data-\d{5}-of-\d{5}")
_LATEST = re.compile(rb'^model_checkpoint_path: "([ !#-\[\]-~]{1,512})"', re.MULTILINE)
_NUMBERS = {"float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"}
_VARIABLE = "/.ATTRIBUTES/VARIABLE_VALUE"  # behind the names of TensorFlow 2's objects
# What optimizers keep beside a variable, under its name and one of these.
_SLOTS = re.compile(
    r"/(Momentum|momentum|LARS\w*|Adam(_\d)?|RMSProp(_\d)?|ExponentialMovingAverage)(:0)?$"
    r"|/\.OPTIMIZER_SLOT/|(^|/)(optimizer|_optimizer)/|(^|/)(LARS|Momentum|Adam)\w*Optimizer"
    r"|(^|/)(global_step|save_counter|beta[12]_power)$"
)


def prefix(path: pathlib.Path) -> pathlib.Path | None:
    """The prefix of the checkpoint that `path` is about, if it is about one.

    Args:
      path: the prefix, one of its files, or a folder with a file `checkpoint`.

    Raises:
      Refused: a folder without, or whose `checkpoint` names none.
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
        raise Refused("it is a folder without a file `checkpoint`, so none of TensorFlow's")
    with file.open("rb") as stream:
        found = _LATEST.search(stream.read(1 << 16))
    if not found:
        raise Refused("its file `checkpoint` has no model_checkpoint_path")
    # The folder may have been moved since; what lies elsewhere is not read in any case.
    return folder / pathlib.PurePosixPath(found[1].decode("ascii")).name


def read(prefix: pathlib.Path) -> dict[str, np.ndarray]:
    """The variables by name, but those of optimizers and counters.

    Raises:
      Refused: a file is missing or damaged, or claims more than the data files hold.
    """
    import tensorflow as tf

    index = prefix.with_name(f"{prefix.name}.index")
    if not index.is_file():
        raise Refused(f"{index.name} is missing beside it")
    data = prefix.parent.glob(f"{_escape(prefix.name)}.data-*")
    size = sum(file.stat().st_size for file in data if file.is_file())
    if not size:
        raise Refused(f"{prefix.name}.data-* are missing beside {index.name}")
    try:
        return _variables(tf.train.load_checkpoint(str(prefix)), size)
    except (tf.errors.OpError, RuntimeError, ValueError, TypeError) as error:
        first = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise Refused(f"TensorFlow does not read it: {first[:300]}") from None


def _variables(reader: Any, size: int) -> dict[str, np.ndarray]:
    dtypes = reader.get_variable_to_dtype_map()
    shapes = {
        name: shape
        for name, shape in reader.get_variable_to_shape_map().items()
        if dtypes[name].name in _NUMBERS and not _SLOTS.search(name)
    }
    if len(shapes) > checks.MAX_TENSORS:
        raise Refused(f"it has {len(shapes):,} variables, over {checks.MAX_TENSORS:,}")
    claimed = 0
    for name, shape in shapes.items():
        if len(shape) > checks.MAX_RANK or any(n < 0 for n in shape):
            raise Refused(f"variable {quote(name)} has a shape that is none")
        claimed += math.prod(shape) * dtypes[name].size
    # TensorFlow reserves what an index claims before it looks.
    if claimed > size:
        raise Refused(f"its variables claim {claimed:,} bytes; the data files have {size:,}")
    return {
        checks.name(name).removesuffix(_VARIABLE): np.asarray(reader.get_tensor(name))
        for name in sorted(shapes)
    }


def _escape(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
