"""Opens a folder of image files as a source."""

import collections
import logging
import os

from ssl_jax.data.source import Labels, Record, Source, image_record
from ssl_jax.errors import BAD_DATA, IO_ERROR, MISSING_INPUT, Fault
from ssl_jax.inputs.image import decode

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
_log = logging.getLogger(__name__)


def open_folder(data_dir: str, split: str, channels: int = 3) -> Source:
    """Opens a folder of images.

    Images at `data_dir/split/CLASS/**/image` have labels: the class folders, in bytewise order of
    their names; an empty class folder counts. Images at `data_dir/split/image` have no labels.

    If `data_dir/split` does not exist, "train" is `data_dir` itself, unless a folder in `data_dir`
    has the name of a split. Any other split is missing. Hidden files and folders are skipped, and
    links are followed. Examples are in bytewise order of their paths, class by class.

    Args:
      data_dir: folder that holds the splits.
      split: name of a folder in `data_dir`.
      channels: number of channels of the decoded images; see `decode.decode`.

    Raises:
      Fault: no such folder (66), no image in it (65), or image files cannot be decoded to
        `channels` channels (78).
    """
    decode.check_channels(channels)
    root = _root(data_dir, split)
    names, files = _entries(root)
    if names and files:
        _log.warning("%s: skipped %d files beside the class folders", root, len(files))
    paths, labels = [], []
    skipped: collections.Counter[str] = collections.Counter()
    for label, name in enumerate(names or [""]):
        images = _images(os.path.join(root, name) if name else root, skipped)
        if name and not images:
            _log.warning("%s: class folder %r holds no image", root, name)
        paths += images
        labels += [label if name else -1] * len(images)
    if skipped:
        kinds = ", ".join(f"{n} {ext or 'without extension'}" for ext, n in skipped.most_common(5))
        _log.warning("%s: skipped files without the extension of an image: %s", root, kinds)
    if not paths:
        raise Fault(
            f"no image in {root}; expected files that end in {', '.join(sorted(EXTENSIONS))}. Put "
            "them into one folder per class or, without labels, into the folder itself.",
            BAD_DATA,
        )

    def describe(index: int) -> str:
        path = paths[index]
        return path if path.isprintable() else repr(path)

    def read_labels(index: int) -> Labels:
        return {"label": labels[index]}

    def load(index: int) -> tuple[Record, Labels]:
        try:
            with open(paths[index], "rb") as file:
                data = file.read()
        except OSError as error:
            code = MISSING_INPUT if isinstance(error, FileNotFoundError) else IO_ERROR
            raise Fault(f"cannot read {describe(index)}: {error.strerror}", code) from error
        return {"image": decode.decode(data, channels)}, read_labels(index)

    return Source(
        name="folder",
        size=len(paths),
        record=image_record(channels),
        load=load,
        describe=describe,
        read_labels=read_labels,
        class_names={"label": tuple(names)} if names else {},
    )


def _root(data_dir: str, split: str) -> str:
    """Returns the folder of a split."""
    root = os.path.join(data_dir, split)
    if os.path.isdir(root):
        return root
    if not os.path.isdir(data_dir):
        raise Fault(f"no folder {os.path.abspath(data_dir)} (data_dir)", MISSING_INPUT)
    names, _ = _entries(data_dir)
    if split == "train" and not _SPLITS & {name.lower() for name in names}:
        return data_dir
    folders = ", ".join(names[:10]) + (", …" if len(names) > 10 else "") or "none"
    raise Fault(
        f"no folder {os.path.abspath(root)} for the split {split!r}; folders in {data_dir}: "
        f"{folders}. Create the folder, or choose another split.",
        MISSING_INPUT,
    )


def _entries(root: str) -> tuple[list[str], list[str]]:
    """Returns the folders and the files in a folder without hidden ones, in bytewise order."""
    with os.scandir(root) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    folders = [entry.name for entry in visible if entry.is_dir()]
    files = [entry.name for entry in visible if not entry.is_dir()]
    return sorted(folders, key=os.fsencode), sorted(files, key=os.fsencode)


def _images(root: str, skipped: collections.Counter[str]) -> list[str]:
    """Returns the image files below a folder in bytewise order; counts other files in `skipped`."""
    images = []
    for folder, names, files in os.walk(root, followlinks=True):
        names[:] = [name for name in names if not name.startswith(".")]
        for name in files:
            extension = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if extension in EXTENSIONS:
                images.append(os.path.join(folder, name))
            else:
                skipped[extension] += 1
    return sorted(images, key=os.fsencode)
