"""Finds the image files below a folder: each folder once, regular files only, in bytewise order."""

import collections
import errno
import os
from collections.abc import Sequence
from typing import NoReturn

from ssl_jax.errors import IO_ERROR, MISSING_INPUT, Fault, printable

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
Identity = tuple[int, int]  # device and inode: equal for all paths that lead to one folder


def split_entries(folder: str) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """Returns the visible folders and the other visible entries, each in bytewise order of names.

    Raises:
      Fault: the folder, or a folder that a link in it leads to, cannot be read (74).
    """
    try:
        with os.scandir(folder) as listed:
            visible = [entry for entry in listed if not entry.name.startswith(".")]
    except OSError as error:
        _refuse(folder, error)
    visible.sort(key=lambda entry: os.fsencode(entry.name))
    folders: list[os.DirEntry[str]] = []
    files: list[os.DirEntry[str]] = []
    for entry in visible:
        (folders if _is_folder(entry) else files).append(entry)
    return folders, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link that leads to itself
            return False
        _refuse(entry.path, error)


def _identity(folder: str) -> Identity:
    try:
        status = os.stat(folder)
    except OSError as error:
        _refuse(folder, error)
    return status.st_dev, status.st_ino


def _refuse(folder: str, error: OSError) -> NoReturn:
    raise Fault(
        f"cannot read the folder {printable(folder)}: {error.strerror}. Make it readable, or move "
        "it out of the data",
        IO_ERROR,
    ) from error


class Search:
    """Finds the images below several folders and counts what it skips.

    Links to files and to folders are followed. Each real folder is read once, whatever leads to it:
    a link to a folder that is searched anyway would repeat its images, perhaps for ever. Real
    folders therefore come before links. A link to a folder around the searched ones is skipped,
    too, because that folder may also hold the test images.

    Args:
      extensions: endings of the files to find, in lower case.

    Attributes:
      skipped: number of skipped files and folders, by kind.
    """

    def __init__(self, extensions: frozenset[str] = EXTENSIONS) -> None:
        self._extensions = extensions
        self.skipped: collections.Counter[str] = collections.Counter()
        self._visited: set[Identity] = set()

    def images(self, folders: Sequence[str]) -> list[list[str]]:
        """Returns the paths of the images below each folder, each list in bytewise order.

        Raises:
          Fault: a folder cannot be read (74), or the target of an image's link is missing (66).
        """
        images: list[list[str]] = [[] for _ in folders]
        for parent in {os.path.realpath(os.path.dirname(folder)) for folder in folders}:
            while _identity(parent) not in self._visited:
                self._visited.add(_identity(parent))
                parent = os.path.dirname(parent)
        numbered = list(enumerate(folders))
        waiting = [pair for pair in numbered if not os.path.islink(pair[1])]
        links = [pair for pair in numbered if os.path.islink(pair[1])]
        while waiting or links:
            for number, folder in waiting:
                links += [(number, link) for link in self._search(folder, images[number])]
            waiting, links = sorted(links, key=lambda pair: os.fsencode(pair[1])), []
        return [sorted(paths, key=os.fsencode) for paths in images]

    def _search(self, folder: str, images: list[str]) -> list[str]:
        """Adds the images below a folder to `images`; returns the links to folders that it met."""
        links, waiting = [], [folder]
        while waiting:
            folder = waiting.pop()
            identity = _identity(folder)
            if identity in self._visited:
                self.skipped["repeated folder"] += 1
                continue
            self._visited.add(identity)
            folders, files = split_entries(folder)
            links += [entry.path for entry in folders if entry.is_symlink()]
            waiting += [entry.path for entry in folders if not entry.is_symlink()]
            images += [entry.path for entry in files if self._is_image(entry)]
        return links

    def _is_image(self, entry: os.DirEntry[str]) -> bool:
        extension = os.path.splitext(entry.name)[1].lower()
        if extension not in self._extensions:
            self.skipped[printable(extension) or "without extension"] += 1
            return False
        if entry.is_symlink() and not os.path.exists(entry.path):
            message = f"{printable(entry.path)} is a link to a file that is missing"
            raise Fault(f"{message}. Restore the file, or delete the link", MISSING_INPUT)
        if not entry.is_file():
            self.skipped["pipe, socket or device"] += 1
            return False
        return True
