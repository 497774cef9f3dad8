"""Opens data sources by name."""

from ssl_jax import plugins
from ssl_jax.data import digits, folder
from ssl_jax.data.source import Source, choose_label
from ssl_jax.errors import BAD_CONFIG, Fault


def open_source(
    name: str, *, data_dir: str, split: str, channels: int = 3, label: str = ""
) -> Source:
    """Opens one split of the source called `name`.

    Args:
      name: "digits" (of scikit-learn, needs no files), "folder" (images below data_dir/split, see
        `folder.open_folder`), "tfds:NAME[/CONFIG][:VERSION]" (a dataset that TensorFlow Datasets
        prepared in data_dir, see `prepared.open_prepared`) or "module:function", a function
        (data_dir, split) -> Source in a module of the user.
      data_dir: folder of the data; "digits" ignores it.
      split: name of the split.
      channels: channels of the images: 1 (grey), 3 (RGB) or 4 (RGBA); other modalities ignore it.
      label: the label field that the probe and evaluation use; "" takes the default field.

    Raises:
      Fault: the data are missing (66) or bad (65); no such source or label exists (78).
    """
    if name == "digits":
        source = digits.open_digits(split, channels)
    elif name == "folder":
        source = folder.open_folder(data_dir, split, channels)
    elif name.startswith("tfds:"):
        from ssl_jax.data import prepared  # imports TensorFlow

        source = prepared.open_prepared(name.removeprefix("tfds:"), data_dir, split, channels)
    elif plugins.is_external(name):
        source = plugins.load(name)(data_dir, split)
    else:
        message = f"unknown data source {name!r}; choose digits, folder, tfds:NAME or, in a module "
        raise Fault(f"{message}of your own, MODULE:FUNCTION", BAD_CONFIG)
    return choose_label(source, label)
