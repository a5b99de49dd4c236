"""Files below a directory that others may write to: no link is followed, and nothing but a file is opened.

The directory itself may be reached through links, since the user chose it. Each folder below it is opened from its
parent's descriptor, so a folder that is replaced by a link meanwhile leads nowhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lighter_async.names import check_name

__all__ = [
    "list_below",
    "make_folders",
    "open_below",
    "open_with_status_below",
    "read_below",
    "remove_below",
    "walk_below",
]

_HAS_FOLDERS = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_FLAGS = 0
for _flag in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
    _FLAGS |= getattr(os, _flag, 0)
_READ = os.O_RDONLY | _FLAGS
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def _folder(root: str | os.PathLike[str], folders: list[str]) -> Iterator[int | None]:
    """A descriptor of a folder below a directory; None where the system opens no file relative to one.

    Raises:
        OSError: It, or a folder above it, is not there, or is a link.
    """
    if not _HAS_FOLDERS:
        path = os.path.realpath(root)
        for name in folders:
            path = os.path.join(path, name)
            if os.path.islink(path):
                raise OSError(errno.ELOOP, "a link, which is not followed", path)
        yield None
        return
    descriptor = os.open(root, _FOLDER)
    try:
        for name in folders:
            inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _split(root: str | os.PathLike[str], file: str) -> tuple[list[str], str]:
    *folders, name = file.split("/")
    return folders, name if _HAS_FOLDERS else os.path.join(os.path.realpath(root), *folders, name)


def open_below(root: str | os.PathLike[str], file: str) -> int:
    """Open a file for reading; returns its descriptor.

    Args:
        root: The directory.
        file: Relative to it, ``/`` between folders, none of which is ``..``.

    Raises:
        OSError: It is not there, is reached through a link, or is no file.
    """
    return open_with_status_below(root, file)[0]


def open_with_status_below(root: str | os.PathLike[str], file: str) -> tuple[int, os.stat_result]:
    """As `open_below`; returns the descriptor, and what `os.fstat` says of it."""
    if _HAS_FOLDERS and "/" not in file:
        # No folder between them could be replaced by a link, and this takes half the time.
        descriptor = os.open(f"{os.fspath(root)}/{file}", _READ)
    else:
        folders, name = _split(root, file)
        with _folder(root, folders) as folder:
            descriptor = os.open(name, _READ, dir_fd=folder)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "something that is no file", os.path.join(root, file))
    return descriptor, status


def read_below(root: str | os.PathLike[str], file: str, most: int) -> bytes:
    """A file's content.

    Raises:
        OSError: As `open_below`, or it is larger than `most` bytes.
    """
    descriptor = open_below(root, file)
    with open(descriptor, "rb") as opened:
        if os.fstat(descriptor).st_size > most:
            raise OSError(errno.EFBIG, f"larger than {most} bytes", os.path.join(root, file))
        return opened.read(most)


def remove_below(root: str | os.PathLike[str], file: str, *, reserved: bool = False) -> None:
    """Remove a file, or a link under its name.

    Args:
        root: The directory.
        file: Relative to it.
        reserved: Whether the file is one of this package's own, under a name that no sample may have.

    Raises:
        OSError: It is not there, is reached through a link, or cannot be removed.
        InvalidNameError: The name leads out of the directory.
    """
    if not reserved:
        check_name(file)
    folders, name = _split(root, file)
    with _folder(root, folders) as folder:
        os.unlink(name, dir_fd=folder)


def make_folders(root: str | os.PathLike[str], folders: str) -> None:
    """Make a folder, and those above it, below a directory.

    Raises:
        OSError: A folder cannot be made, or is a link: samples stored through it would lie elsewhere.
    """
    names = folders.split("/")
    if not _HAS_FOLDERS:
        with _folder(root, names):
            os.makedirs(os.path.join(root, *names), exist_ok=True)
        return
    descriptor = os.open(root, _FOLDER)
    try:
        for name in names:
            try:
                os.mkdir(name, dir_fd=descriptor)
            except FileExistsError:
                pass
            inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
    finally:
        os.close(descriptor)


def list_below(root: str | os.PathLike[str], folder: str) -> list[str]:
    """The names in a folder below a directory; empty if there is no such folder, or a link in its place."""
    try:
        with _folder(root, folder.split("/")) as descriptor:
            return os.listdir(Path(root, folder) if descriptor is None else descriptor)
    except OSError:
        return []


def walk_below(
    root: str | os.PathLike[str], *, but: str | None = None, into: Callable[[str], bool] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """The directory itself, as ``""``, and every folder below it, each with the names in it that are not folders.

    A folder that cannot be listed comes without names, such as one with a path longer than the system allows; this
    package makes none. The walk does not recurse, so a tree may be of any depth.

    Args:
        root: The directory.
        but: Skip folders with names that begin with this.
        into: Which other folders to look into, by their paths below the directory. None: all of them.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        files = []
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        files.append(entry.name)
                    elif but is None or not entry.name.startswith(but):
                        path = f"{folder}/{entry.name}" if folder else entry.name
                        if into is None or into(path):
                            folders.append(path)
        except OSError:
            pass
        yield folder, files
