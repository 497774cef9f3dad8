"""Opens data sources by name."""

import inspect
import os
from typing import Any

from ssl_jax import plugins
from ssl_jax.data import digits, folder, text
from ssl_jax.data.source import Facts, Source, choose_label
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.inputs import is_folder, is_of_images

CAPTIONS = "captions:"  # prefix of the name of a source of images
IMAGE_OPTIONS = ("channels", "max_megapixels")


def open_source(
    name: str,
    *,
    data_dir: str,
    split: str,
    label: str = "",
    facts: Facts | None = None,
    holdout: float = 0,
    **options: Any,
) -> Source:
    """Opens one split of the source called `name`.

    Args:
      name: "digits" (of scikit-learn, needs no files), "folder" (images below data_dir/split, see
        `folder.open_folder`), "audio" (sound files, see `audio.open_audio`), "pairs" (images and
        captions, see `pairs.open_pairs`), "captions:SOURCE" ("digits", "folder" or "tfds:NAME"
        with captions made from its class names, see `pairs.open_captions`), "text" (a file or a
        folder of plain text, see `text.open_text`), "tfds:NAME[/CONFIG][:VERSION]" (a
        dataset that TensorFlow Datasets prepared in data_dir, see `prepared.open_prepared`) or
        "module:function", a function (data_dir, split, **options) -> Source in a module of the
        user.
      data_dir: folder of the data; "digits" ignores it. If it is empty, "tfds:NAME" takes the
        environment variable TFDS_DATA_DIR, or ~/tensorflow_datasets.
      split: name of the split.
      label: the label field that the probe and evaluation use; "" takes the default field.
      facts: `Source.facts` of the run for which the examples are opened; None makes them.
      holdout: share of the examples that the caller holds out, see `holdout.training_rows`: "pairs"
        makes its facts from the others. The source itself is opened whole.
      **options: the source's own options, `DATA_FIELDS` of its modality; of images, `channels` and
        `max_megapixels`. A function of the user gets those that it has parameters for; `facts`
        and `holdout` likewise.

    Raises:
      Fault: the data are missing (66) or bad (65); no such source or label exists (78).
    """
    data_dir = os.path.expanduser(data_dir)
    if name == "digits":
        source = digits.open_digits(split, options.get("channels", 3))
    elif name == "folder":
        source = folder.open_folder(data_dir, split, **options)
    elif name == "audio":
        from ssl_jax.data import audio  # needs libraries that images do not need

        source = audio.open_audio(data_dir, split, **options)
    elif name.startswith("tfds:"):
        from ssl_jax.data import prepared  # imports TensorFlow

        source = prepared.open_prepared(
            name.removeprefix("tfds:"),
            data_dir or _tfds_data_dir(),
            split,
            **options,
        )
    elif name == "pairs" or name.startswith(CAPTIONS):
        source = _open_pairs(name, data_dir, split, label, facts, holdout, options)
    elif name == "text":
        source = text.open_text(data_dir, split, facts=facts, **options)
    elif plugins.is_external(name):
        function = plugins.load(name)
        known = inspect.signature(function).parameters
        offered = options | {"holdout": holdout} | ({} if facts is None else {"facts": facts})
        accepted = {option: value for option, value in offered.items() if option in known}
        source = function(data_dir, split, **accepted)
    else:
        message = f"unknown data source {name!r}; choose audio, captions:SOURCE, digits, folder, "
        message += "pairs, text, tfds:NAME or, in a module of your own, MODULE:FUNCTION"
        raise Fault(message, BAD_CONFIG)
    return choose_label(source, label)


def evaluation_split(name: str, data_dir: str, split: str) -> str:
    """Returns the split to evaluate: `split`, or in a folder without it another usual name.

    Args:
      name: name of the source.
      data_dir: folder of the data.
      split: the split that the config names.
    """
    in_folder = is_folder(name)
    return folder.evaluation_split(os.path.expanduser(data_dir), split) if in_folder else split


def _open_pairs(
    name: str,
    data_dir: str,
    split: str,
    label: str,
    facts: Facts | None,
    holdout: float,
    options: dict[str, Any],
) -> Source:
    """Opens "pairs" or "captions:SOURCE"."""
    from ssl_jax.data import pairs

    if name == "pairs":
        return pairs.open_pairs(data_dir, split, facts=facts, holdout=holdout, **options)
    of_images = {option: options[option] for option in IMAGE_OPTIONS if option in options}
    inner = name.removeprefix(CAPTIONS)
    if not is_of_images(inner):
        message = f"data.source={name!r}: captions are written for the images of digits, folder or "
        raise Fault(f"{message}tfds:NAME, and {inner!r} is none of them", BAD_CONFIG)
    images = open_source(inner, data_dir=data_dir, split=split, label=label, **of_images)
    of_text = {option: value for option, value in options.items() if option not in of_images}
    return pairs.open_captions(images, facts=facts, **of_text)


def _tfds_data_dir() -> str:
    """Returns the folder in which TFDS prepares datasets if none is given."""
    return os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
