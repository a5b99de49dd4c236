"""Write one file, whole or not at all."""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from lighter_async.locks import warn_of
from lighter_async.names import RESERVED_PREFIX
from lighter_async.positioned import write_to

__all__ = [
    "NEW",
    "PART_ENDING",
    "local_path",
    "name_part",
    "new_token",
    "note_unremoved",
    "publish",
    "remove",
    "set_aside",
    "sync_folder",
    "temporary_name",
    "temporary_token",
    "was_unremoved",
    "write_at",
    "write_part",
]

PART_ENDING = ".part"
"""How the names of unfinished files end."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")  # at least two letters: one is a drive of Windows

_PARTS_PER_WRITE = 1024  # IOV_MAX on Linux and macOS

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
"""Flags to open a file that is not there yet."""

_NO_REPLACING = frozenset({errno.EEXIST, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
_NO_SYNCING = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF})

_counter = itertools.count()

# The tokens of writers of which a temporary file could not be removed.
_unremoved: set[str] = set()


def local_path(directory: str | os.PathLike[str]) -> Path:
    """The path of a directory that a user named, ``~`` and ``~user`` expanded.

    Raises:
        ValueError: It is a URL, which cannot be stored to, is not a path, or names a user without a home folder.
    """
    text = os.fsdecode(directory)
    if "\0" in text:
        raise ValueError(f"directory {text[:100]!r} holds a NUL character, which no file system stores; remove it")
    # `Path` leaves one slash of a URL.
    if (found := _URL.match(text)) is not None:
        raise ValueError(
            f"{text[:100]!r} is a URL, and results are stored in directories; give a local path, such as where the "
            f"bucket is mounted, and copy the results there later (a directory of that name is ./{found[0]}...)"
        )
    if not text.startswith("~"):
        return Path(directory)  # also ./~, a folder of that name
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise ValueError(
            f"no home folder is known for {text[:100]!r}; give its path, or ./{text[:100]} for a folder of that name"
        )
    return Path(expanded)


def new_token() -> str:
    """A short random word that no other writer uses."""
    return os.urandom(6).hex()


_direct = new_token()


def publish(path: Path | str, parts: Sequence[memoryview], *, token: str | None = None, replace: bool = True) -> None:
    """Write `parts` to a temporary file beside `path`, then rename it in one step.

    Readers see a whole file or none, whatever ends this process. The temporary name does not contain the final one, so
    a final name may be as long as the file system allows. A loss of power is not covered: nothing is synced.

    Args:
        path: The final path, in a folder that exists.
        parts: The file's content, one part after the other.
        token: Marks the temporary file as that of a certain writer.
        replace: Whether a file of that name may be replaced.

    Raises:
        FileExistsError: There is a file of that name, and it may not be replaced.
        OSError: The file could not be written. Nothing is left behind.
    """
    path = os.fspath(path)
    temporary, descriptor = write_part(path, parts, token=token)
    try:
        os.close(descriptor)
        name_part(temporary, path, replace=replace)
    except BaseException:
        remove(temporary)
        raise


def write_part(path: str, parts: Sequence[memoryview], *, token: str | None = None) -> tuple[str, int]:
    """Write `parts` to a temporary file beside `path`; returns its path, and its descriptor, still open.

    Raises:
        OSError: The file could not be written. Nothing is left behind.
    """
    folder = path[: path.rfind("/") + 1] if os.sep == "/" else os.path.join(os.path.dirname(path), "")
    temporary = f"{folder}{temporary_name(token or _direct)}"
    descriptor = os.open(temporary, NEW, 0o666)
    try:
        _write_all(descriptor, parts)
    except BaseException:
        os.close(descriptor)
        remove(temporary)
        raise
    return temporary, descriptor


def temporary_name(token: str) -> str:
    """A new name for a temporary file of the writer with this token."""
    # The process is part of the name, since a fork copies the counter and the token.
    return f"{RESERVED_PREFIX}-{token}-{os.getpid()}-{next(_counter)}{PART_ENDING}"


def set_aside(path: str, *, token: str) -> str:
    """Give a file a temporary name in its folder; returns that.

    Raises:
        OSError: It is not there, or cannot be renamed.
    """
    folder = path[: path.rfind("/") + 1] if os.sep == "/" else os.path.join(os.path.dirname(path), "")
    aside = f"{folder}{temporary_name(token)}"
    os.rename(path, aside)
    return aside


def name_part(
    temporary: str, path: str, *, replace: bool, alone: Callable[[], AbstractContextManager[None]] = nullcontext
) -> None:
    """Rename a temporary file to its final name in one step.

    Args:
        temporary: The temporary file.
        path: Its final path.
        replace: Whether it may replace a file.
        alone: Makes a context in which no other writer renames a file, for file systems without hard links.

    Raises:
        FileExistsError: There is a file of that name, and it may not be replaced. The temporary file is still there.
        OSError: It could not be renamed. The temporary file is still there.
    """
    if replace:
        _replace(temporary, path)
    else:
        _link(temporary, path, alone)


def temporary_token(file: str) -> str | None:
    """The token of the writer that made a temporary file; None if it is not a temporary file of this package."""
    beginning = RESERVED_PREFIX + "-"
    if not (file.startswith(beginning) and file.endswith(PART_ENDING)):
        return None
    return file[len(beginning) :].split("-", 1)[0]


def remove(path: str) -> bool:
    """Remove a file; returns whether there was one.

    Raises:
        OSError: It cannot be removed. If it is a temporary one, `was_unremoved` tells.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError:
        note_unremoved(path)
        raise
    return True


def note_unremoved(path: str) -> None:
    """Note that a temporary file could not be removed."""
    token = temporary_token(os.path.basename(path))
    if token is not None:
        _unremoved.add(token)


def was_unremoved(token: str) -> bool:
    """Whether a temporary file of a writer could not be removed since this was asked last."""
    is_so = token in _unremoved
    _unremoved.discard(token)
    return is_so


def _write_all(descriptor: int, parts: Sequence[memoryview]) -> None:
    left = sum([part.nbytes for part in parts])
    while left:
        if hasattr(os, "writev"):
            written = os.writev(descriptor, parts if len(parts) <= _PARTS_PER_WRITE else parts[:_PARTS_PER_WRITE])
        else:
            written = os.write(descriptor, parts[0])
        left -= written
        if left:
            parts = _behind(parts, written)


def write_at(descriptor: int, pieces: Sequence[bytes | memoryview], place: int) -> int:
    """Write pieces one behind the other from a place of a file on, all of them; returns where they end.

    Args:
        descriptor: Of the file.
        pieces: What to write.
        place: Where, in bytes.

    Raises:
        OSError: They could not be written, or not all. What the file holds from the place on is not known then.
    """
    parts: Sequence[memoryview] = [memoryview(one).cast("B") for one in pieces if memoryview(one).nbytes]
    if len(parts) > _PARTS_PER_WRITE or not hasattr(os, "pwritev"):
        parts = [memoryview(b"".join(parts))] if parts else []
    while parts:
        # A write may be short (2 GiB, a disk that has just filled up): the next one goes on, or tells why not.
        written = write_to(descriptor, parts, place)
        if not written:
            raise OSError(errno.EIO, "nothing was written")
        place += written
        parts = _behind(parts, written)
    return place


def _behind(parts: Sequence[memoryview], written: int) -> Sequence[memoryview]:
    """What is left of some parts when bytes of them were written.

    A write may be short: a signal, 2 GiB, a disk that has just filled up.
    """
    whole = 0
    while whole < len(parts) and written >= parts[whole].nbytes:
        written -= parts[whole].nbytes
        whole += 1
    if whole == len(parts):
        return []
    return [parts[whole][written:], *parts[whole + 1 :]]


def _is_same(one: str, other: Path | str) -> bool:
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except OSError:
        return False


def _replace(temporary: str, path: str) -> None:
    """Rename a file in one step, replacing one of that name."""
    try:
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in _NO_REPLACING or not os.path.isfile(path):
            raise
        warn_of(
            os.path.dirname(path),
            f"renaming over a file ({os.strerror(error.errno)})",
            "a crash while a file is replaced may leave neither the old one nor the new one",
        )
        aside = temporary.removesuffix(PART_ENDING) + "-old" + PART_ENDING
        os.rename(path, aside)
        try:
            os.rename(temporary, path)
        except BaseException:
            os.rename(aside, path)
            raise
        remove(aside)


def sync_folder(folder: str) -> None:
    """Sync a folder, so that the names in it are on the disk."""
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows opens no folder, and keeps names without
    descriptor = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNCING:
            raise
        warn_of(
            folder,
            f"syncing of folders ({os.strerror(error.errno)})",
            "a loss of power may cost the last files their names, although their bytes are on the disk",
        )
    finally:
        os.close(descriptor)


def _link(temporary: str, path: Path | str, alone: Callable[[], AbstractContextManager[None]]) -> None:
    """Rename a file in one step, unless the name is taken: a link fails where a rename would replace."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        # A network file system may have made the link, lost the answer, and tried again.
        if _is_same(temporary, path):
            os.unlink(temporary)
            return
        raise FileExistsError(f"{os.fspath(path)!r} exists already") from None
    except FileNotFoundError:
        raise
    except OSError:
        # The file system has no hard links (FAT, some network file systems).
        with alone():
            if os.path.lexists(path):
                raise FileExistsError(f"{os.fspath(path)!r} exists already") from None
            os.rename(temporary, path)
        return
    os.unlink(temporary)
