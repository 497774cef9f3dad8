"""Opens data sources by name."""

import inspect
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax import plugins
from ssl_jax.data import digits, folder, text
from ssl_jax.data.source import Source, choose_label
from ssl_jax.errors import BAD_CONFIG, Fault


def open_source(
    name: str,
    *,
    data_dir: str,
    split: str,
    label: str = "",
    facts: Mapping[str, np.ndarray] | None = None,
    **options: Any,
) -> Source:
    """Opens one split of the source called `name`.

    Args:
      name: "digits" (of scikit-learn, needs no files), "folder" (images below data_dir/split, see
        `folder.open_folder`), "text" (a file or a folder of plain text, see `text.open_text`),
        "tfds:NAME[/CONFIG][:VERSION]" (a dataset that TensorFlow Datasets
        prepared in data_dir, see `prepared.open_prepared`) or "module:function", a function
        (data_dir, split, **options) -> Source in a module of the user.
      data_dir: folder of the data; "digits" ignores it. If it is empty, "tfds:NAME" takes the
        environment variable TFDS_DATA_DIR, or ~/tensorflow_datasets.
      split: name of the split.
      label: the label field that the probe and evaluation use; "" takes the default field.
      facts: `Source.facts` of the training examples, for sources whose examples depend on them;
        None for the training examples themselves.
      **options: the source's own options, `DATA_FIELDS` of its modality; of images, `channels` and
        `max_megapixels`. A function of the user gets those that it has parameters for.

    Raises:
      Fault: the data are missing (66) or bad (65); no such source or label exists (78).
    """
    data_dir = os.path.expanduser(data_dir)
    if name == "digits":
        source = digits.open_digits(split, options.get("channels", 3))
    elif name == "folder":
        source = folder.open_folder(data_dir, split, **options)
    elif name.startswith("tfds:"):
        from ssl_jax.data import prepared  # imports TensorFlow

        source = prepared.open_prepared(
            name.removeprefix("tfds:"),
            data_dir or _tfds_data_dir(),
            split,
            **options,
        )
    elif name == "text":
        source = text.open_text(data_dir, split, facts=facts, **options)
    elif plugins.is_external(name):
        function = plugins.load(name)
        known = inspect.signature(function).parameters
        given = options if facts is None else {**options, "facts": facts}
        accepted = {option: value for option, value in given.items() if option in known}
        source = function(data_dir, split, **accepted)
    else:
        message = (
            f"unknown data source {name!r}; choose digits, folder, text, tfds:NAME or, in a module "
        )
        raise Fault(f"{message}of your own, MODULE:FUNCTION", BAD_CONFIG)
    return choose_label(source, label)


def evaluation_split(name: str, data_dir: str, split: str) -> str:
    """Returns the split to evaluate: `split`, or in a folder without it another usual name.

    Args:
      name: name of the source.
      data_dir: folder of the data.
      split: the split that the config names.
    """
    return (
        folder.evaluation_split(os.path.expanduser(data_dir), split) if name == "folder" else split
    )


def _tfds_data_dir() -> str:
    """Returns the folder in which TFDS prepares datasets if none is given."""
    return os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
