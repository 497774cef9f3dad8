"""Opens a folder of sound files as a source."""

import functools
import logging
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ssl_jax.data import file_names, folder, identity
from ssl_jax.data.image_files import Search
from ssl_jax.data.source import Labels, Record, Source
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, IO_ERROR, MISSING_INPUT, Fault, printable
from ssl_jax.inputs.audio.decode import EXTENSIONS, decode

RECORD = {"waveform": (np.float32, (None,)), "group": (np.int32, ())}
FOLDER = "folder"  # name of the class folder, as a group and among the fields of a file
_log = logging.getLogger(__name__)


class _Files(NamedTuple):
    """Sound files, and the value of every field of each file."""

    root: str
    paths: list[str]
    fields: list[file_names.Fields]
    classes: dict[str, list[str]]  # every value of each field, in the order of its number


def open_audio(
    data_dir: str, split: str, sample_rate: int = 16000, pattern: str = "", group: str = ""
) -> Source:
    """Opens a folder of WAV and FLAC files.

    Without a pattern, splits and labels are folders, as of `folder.open_folder`: files at
    `data_dir/split/CLASS/**/file` have the label CLASS, and files at `data_dir/split/file` have
    none. With a pattern, every field of the pattern is a label field; classes are the values in
    natural order, and the first field is the default label. `split` is then a folder in `data_dir`,
    or a condition on the fields, see `file_names.condition`; "all" takes all files, and so does
    "train" if there is no such folder. The classes are those of all files in `data_dir`, so every
    split has the same classes.

    Examples are in bytewise order of their paths. Files whose names do not fit the pattern are
    skipped with a warning.

    Args:
      data_dir: folder of the files.
      split: name of the split, or a condition.
      sample_rate: samples per second; see `decode.decode`.
      pattern: pattern of the names without extension; "" takes class folders.
      group: field whose value numbers the groups of examples, or "folder" for class folders; "":
        all examples are of group 0.

    Raises:
      Fault: no such folder (66); no sound file, or none that fits (65); a bad pattern, condition or
        group (78).
    """
    files = _in_folders(data_dir, split) if not pattern else _by_name(data_dir, split, pattern)
    names = [FOLDER] if not pattern else [*file_names.field_names(pattern), FOLDER]
    if group and group not in names:
        raise Fault(
            f"data.group={group!r}: choose a field of data.pattern or 'folder': {', '.join(names)}",
            BAD_CONFIG,
        )
    paths, fields, classes = files.paths, files.fields, files.classes
    numbers = {name: {value: i for i, value in enumerate(classes[name])} for name in names}
    # Without a pattern, the label field "label" is the class folder.
    columns = {name: name for name in names[:-1]}
    if not pattern and classes[FOLDER] != [""]:
        columns = {"label": FOLDER}

    def value(index: int, name: str) -> int:
        return numbers[name][fields[index][name]]

    def describe(index: int) -> str:
        return printable(paths[index])

    def read_labels(index: int) -> Labels:
        return {name: value(index, column) for name, column in columns.items()}

    def load(index: int) -> tuple[Record, Labels]:
        try:
            with open(paths[index], "rb") as file:
                data = file.read()
        except OSError as error:
            code = MISSING_INPUT if isinstance(error, FileNotFoundError) else IO_ERROR
            raise Fault(f"cannot read {describe(index)}: {error.strerror}", code) from error
        number = value(index, group) if group else 0
        record = {"waveform": decode(data, sample_rate), "group": np.asarray(number, np.int32)}
        return record, read_labels(index)

    return Source(
        name="audio",
        size=len(paths),
        record=RECORD,
        load=load,
        describe=describe,
        read_labels=read_labels,
        class_names={name: tuple(classes[column]) for name, column in columns.items()},
        default_label=next(iter(columns), "label"),
        identity=functools.cache(lambda: identity.of_files(paths, files.root)),
    )


def _in_folders(data_dir: str, split: str) -> _Files:
    """Finds the files of a split, each with the name of its class folder; "" without classes."""
    root = folder.split_folder(data_dir, split, "sound files")
    classes, others = folder.entry_names(root)
    if classes and any(os.path.splitext(name)[1].lower() in EXTENSIONS for name in others):
        _log.warning("%s: skipped the files beside the class folders", printable(root))
    search = Search(EXTENSIONS)
    found = search.images([os.path.join(root, name) for name in classes] or [root])
    pairs = [
        (path, name) for name, paths in zip(classes or [""], found, strict=True) for path in paths
    ]
    _check_found([path for path, _ in pairs], root, search)
    fields = [{FOLDER: name} for _, name in pairs]
    # An empty class folder counts, as among images: splits with the same folders agree.
    return _Files(root, [path for path, _ in pairs], fields, {FOLDER: classes or [""]})


def _by_name(data_dir: str, split: str, pattern: str) -> _Files:
    """Finds the files of a split whose names fit the pattern, with the values of its fields."""
    read, names = file_names.reader(pattern), file_names.field_names(pattern)
    if FOLDER in names:
        message = f"data.pattern={pattern!r}: {{{FOLDER}}} is no name for a field, because"
        raise Fault(f"{message} data.group={FOLDER!r} means the folder of a file", BAD_CONFIG)
    own = os.path.isdir(os.path.join(data_dir, split))
    conditional = not own and file_names.is_condition(split)
    whole = not own and (conditional or split == "all")
    root = folder.split_folder(data_dir, "" if whole else split, "sound files").rstrip(os.sep)
    paths, fields = _that_fit(root, pattern, read)
    others = [] if os.path.samefile(root, data_dir) else Search(EXTENSIONS).images([data_dir])[0]
    known = [*fields, *filter(None, (_fields(path, read) for path in others))]
    classes = {name: file_names.natural_order(one[name] for one in known) for name in names}
    chosen = list(range(len(paths)))
    if conditional:
        fits = file_names.condition(split, classes)
        chosen = [i for i in chosen if fits(fields[i])]
    if not chosen:
        message = f"no file in {printable(root)} fulfils the condition {split!r}"
        raise Fault(f"{message}. Correct data.split or data.eval_split", BAD_DATA)
    classes[FOLDER] = file_names.natural_order(one[FOLDER] for one in fields)
    return _Files(root, [paths[i] for i in chosen], [fields[i] for i in chosen], classes)


def _that_fit(
    root: str, pattern: str, read: Callable[[str], file_names.Fields | None]
) -> tuple[list[str], list[file_names.Fields]]:
    """Returns the files below `root` whose names fit the pattern, and their fields."""
    search = Search(EXTENSIONS)
    (every,) = search.images([root])
    _check_found(every, root, search)
    paths, fields = [], []
    for path in every:
        inside = os.path.relpath(path, root)
        values = _fields(path, read)
        if values is not None:
            first = inside.split(os.sep)[0] if os.sep in inside else ""
            paths.append(path)
            fields.append(values | {FOLDER: first})
    example = printable(os.path.basename(next(iter(set(every) - set(paths)), "")))
    if not paths:
        message = (
            f"data.pattern={pattern!r} fits no file in {printable(root)}, for example {example}"
        )
        raise Fault(f"{message}. The pattern describes the name without its extension", BAD_DATA)
    if len(paths) < len(every):
        count = len(every) - len(paths)
        _log.warning("skipped %d files that do not fit %r, for example %s", count, pattern, example)
    return paths, fields


def _fields(path: str, read: Callable[[str], file_names.Fields | None]) -> file_names.Fields | None:
    return read(os.path.splitext(os.path.basename(path))[0])


def _check_found(paths: list[str], root: str, search: Search) -> None:
    """Logs what was skipped; raises Fault if there is no sound file."""
    if search.skipped:
        kinds = ", ".join(f"{count} {kind}" for kind, count in search.skipped.most_common(5))
        _log.warning("%s: skipped, because they are not sound files: %s", printable(root), kinds)
    if not paths:
        raise Fault(
            f"no sound file in {printable(root)}; expected files that end in "
            f"{', '.join(sorted(EXTENSIONS))}. Put them into one folder per class, or name their "
            "labels by data.pattern",
            BAD_DATA,
        )
