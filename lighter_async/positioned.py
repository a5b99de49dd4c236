"""Reading and writing at a place of a file, also on systems that have no call for it, such as Windows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

__all__ = ["read_from", "sync_data", "write_to"]

# Held while the place of an open file is another one, which all threads share that have the file open.
_moved = Lock()


def read_from(descriptor: int, nbytes: int, place: int) -> bytes:
    """As `os.pread`."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, nbytes, place)
    with _at(descriptor, place):
        return os.read(descriptor, nbytes)


def write_to(descriptor: int, parts: Sequence[bytes | memoryview], place: int) -> int:
    """As `os.pwritev`, but one part alone may be written."""
    if len(parts) > 1 and hasattr(os, "pwritev"):
        return os.pwritev(descriptor, parts, place)
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, parts[0], place)
    with _at(descriptor, place):
        return os.write(descriptor, parts[0])


def sync_data(descriptor: int) -> None:
    """As `os.fdatasync`, which macOS and Windows lack."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


@contextmanager
def _at(descriptor: int, place: int) -> Iterator[None]:
    with _moved:
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, place, os.SEEK_SET)
        try:
            yield
        finally:
            os.lseek(descriptor, before, os.SEEK_SET)
