"""Opens a folder of image files as a source."""

import functools
import logging
import os

from ssl_jax.data import identity
from ssl_jax.data.image_files import EXTENSIONS, Search, split_entries
from ssl_jax.data.source import Labels, Record, Source, image_record
from ssl_jax.errors import BAD_DATA, IO_ERROR, MISSING_INPUT, Fault, printable
from ssl_jax.inputs.image import decode

_EVALUATION = ("test", "val", "validation", "valid", "testing")
_SPLITS = frozenset({"train", "training", *_EVALUATION})
_log = logging.getLogger(__name__)


def open_folder(
    data_dir: str,
    split: str,
    channels: int = 3,
    max_megapixels: float = decode.MAX_MEGAPIXELS,
) -> Source:
    """Opens a folder of images.

    Images at `data_dir/split/CLASS/**/image` have labels: the class folders, in bytewise order of
    their names; an empty class folder counts. Images at `data_dir/split/image` have no labels.

    If `data_dir/split` does not exist, "train" is `data_dir` itself, unless a folder in `data_dir`
    has the name of a split. Any other split is missing. Hidden files and folders are skipped.
    Examples are in bytewise order of their paths, class by class.

    Only regular files count. Links are followed: each link to a file is an example of its own, and
    a folder that several paths lead to is read once, as `image_files.Search` describes.

    Args:
      data_dir: folder that holds the splits.
      split: name of a folder in `data_dir`.
      channels, max_megapixels: see `decode.decode`.

    Raises:
      Fault: no such folder, or a link to a missing image (66); no image in the folder (65); a
        folder cannot be read (74); image files cannot be decoded to `channels` channels (78).
    """
    decode.check_channels(channels)
    root = split_folder(data_dir, split)
    names, files = _names(root)
    if names and files:
        _log.warning("%s: skipped %d files beside the class folders", printable(root), len(files))
    search = Search()
    found = search.images([os.path.join(root, name) for name in names] or [root])
    for name, images in zip(names, found, strict=False):
        if not images:
            _log.warning("%s: class folder %r holds no image", printable(root), name)
    paths = [path for images in found for path in images]
    labels = [label if names else -1 for label, images in enumerate(found) for _ in images]
    if search.skipped:
        kinds = ", ".join(f"{count} {kind}" for kind, count in search.skipped.most_common(5))
        _log.warning("%s: skipped, because they are not images: %s", printable(root), kinds)
    if not paths:
        raise Fault(
            f"no image in {printable(root)}; expected files that end in "
            f"{', '.join(sorted(EXTENSIONS))}. Put them into one folder per class or, without "
            "labels, into the folder itself.",
            BAD_DATA,
        )

    def describe(index: int) -> str:
        return printable(paths[index])

    def read_labels(index: int) -> Labels:
        return {"label": labels[index]}

    def load(index: int) -> tuple[Record, Labels]:
        try:
            with open(paths[index], "rb") as file:
                data = file.read()
        except OSError as error:
            code = MISSING_INPUT if isinstance(error, FileNotFoundError) else IO_ERROR
            raise Fault(f"cannot read {describe(index)}: {error.strerror}", code) from error
        image = decode.decode(data, channels, max_megapixels=max_megapixels)
        return {"image": image}, read_labels(index)

    return Source(
        name="folder",
        size=len(paths),
        record=image_record(channels),
        load=load,
        describe=describe,
        read_labels=read_labels,
        class_names={"label": tuple(names)} if names else {},
        identity=functools.cache(lambda: identity.of_files(paths, root)),
    )


def evaluation_split(data_dir: str, split: str) -> str:
    """Returns `split` if its folder exists or its name is unusual, else the first usual name."""
    names = (split, *_EVALUATION) if split in _EVALUATION else ()
    return next((name for name in names if os.path.isdir(os.path.join(data_dir, name))), split)


def split_folder(data_dir: str, split: str) -> str:
    """Returns the folder of a split; see `open_folder`.

    Raises:
      Fault: no such folder (66).
    """
    root = os.path.join(data_dir, split)
    if os.path.isdir(root):
        return root
    if not os.path.isdir(data_dir):
        message = f"no folder {printable(os.path.abspath(data_dir))}, which data.dir names"
        raise Fault(f"{message}. Pass --config.data.dir=FOLDER of your images", MISSING_INPUT)
    names, _ = _names(data_dir)
    if split == "train" and not _SPLITS & {name.lower() for name in names}:
        return data_dir
    folders = ", ".join(map(printable, names[:10])) + (", …" if len(names) > 10 else "") or "none"
    raise Fault(
        f"no folder {printable(os.path.abspath(root))} for the split {split!r}; folders in "
        f"{printable(data_dir)}: {folders}. Create the folder, or choose another split.",
        MISSING_INPUT,
    )


def _names(folder: str) -> tuple[list[str], list[str]]:
    """Returns the names of the visible folders and of the other entries, in bytewise order."""
    folders, files = split_entries(folder)
    return [entry.name for entry in folders], [entry.name for entry in files]
