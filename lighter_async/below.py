"""Files below a directory that others may write to: no link is followed, and nothing but a file is opened.

The directory itself may be reached through links, since its user chose it. Each folder below it is opened from the one
above, so that one which is replaced by a link meanwhile leads nowhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lighter_async.names import check_name

__all__ = ["list_below", "make_folders", "open_below", "read_below", "remove_below", "walk_below"]

_HAS_FOLDERS = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def _folder(root: str | os.PathLike[str], folders: list[str]) -> Iterator[int | None]:
    """A descriptor of a folder below a directory; None where the system opens nothing from one.

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
    folders, name = _split(root, file)
    if folders or not _HAS_FOLDERS:
        with _folder(root, folders) as folder:
            descriptor = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=folder)
    else:  # with no folder between there is nothing that could be replaced by a link, and it takes half the time
        descriptor = os.open(os.path.join(root, name), os.O_RDONLY | _FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "something that is no file", os.path.join(root, file))
    return descriptor


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
    """Remove a file, or a link in its place.

    Args:
        root: The directory.
        file: Relative to it.
        reserved: Whether it is one of this package's own, whose name is none that a sample may have.

    Raises:
        OSError: It is not there, is reached through a link, or cannot be removed.
        InvalidNameError: It would not be below the directory.
    """
    if not reserved:
        check_name(file)
    folders, name = _split(root, file)
    with _folder(root, folders) as folder:
        os.unlink(name, dir_fd=folder)


def make_folders(root: str | os.PathLike[str], folders: str) -> None:
    """Make a folder, and those above it, below a directory.

    Raises:
        OSError: One of them cannot be made, or is a link: what is stored through it would lie elsewhere.
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
    """The names in a folder below a directory; none where there is no such folder, or a link in its place."""
    try:
        with _folder(root, folder.split("/")) as descriptor:
            return os.listdir(Path(root, folder) if descriptor is None else descriptor)
    except OSError:
        return []


def walk_below(root: str | os.PathLike[str], *, but: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """Every folder below a directory, and itself, as ``""``, with the names of what lies in it and is no folder.

    Folders that cannot be listed are left out, such as those whose path is longer than the system takes: none of ours
    is. Nothing recurses, so that a tree may be as deep as it likes.

    Args:
        root: The directory.
        but: Folders whose names begin with this are left out.
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
                        folders.append(f"{folder}/{entry.name}" if folder else entry.name)
        except OSError:
            pass
        yield folder, files
