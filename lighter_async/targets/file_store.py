"""Reading back what a `LocalTarget` has stored: every sample is a file of its own."""

from __future__ import annotations

import io
import os

import numpy as np

from lighter_async.below import open_below
from lighter_async.errors import ReadError
from lighter_async.store import Place

__all__ = ["FileStore"]

_SMALL = 1 << 20  # bytes


class FileStore:
    """Reads files below a directory, and follows no link there.

    Args:
        directory: The directory. It may itself be reached through links.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        # A worker of a data loader may be started in another working directory.
        self._root = os.path.abspath(directory)

    @property
    def location(self) -> str:
        """The directory."""
        return self._root

    def read(self, place: Place) -> bytes | memoryview:
        """As `Store.read`: a file's content. A large one comes as a view of writable memory."""
        descriptor = self._open(place.object)
        try:
            with io.FileIO(descriptor) as file:
                size = os.fstat(descriptor).st_size
                if size != place.bytes:
                    raise _wrong_size(place, size)
                if size <= _SMALL:
                    data = file.read(size) if size else b""
                    if len(data) == size:
                        return data
                    file.seek(0)
                # Memory that is not cleared first, and that a tensor can be made of without a copy.
                buffer = np.empty(size, np.uint8).data
                done = 0
                while done < size and (count := file.readinto(buffer[done:])):
                    done += count
        except OSError as error:
            raise _unreadable(self._root, place.object, error) from error
        if done < size:
            raise _wrong_size(place, done)
        return buffer

    def stat(self, place: Place) -> int:
        """As `Store.stat`: a file's size."""
        descriptor = self._open(place.object)
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def _open(self, file: str) -> int:
        try:
            return open_below(self._root, file)
        except OSError as error:
            raise _unreadable(self._root, file, error) from error


def _wrong_size(place: Place, size: int) -> ReadError:
    detail = f"it has {size} bytes instead of {place.bytes}"
    return ReadError(f"{place.object!r}: {detail}", file=place.object, trouble="wrong size", detail=detail)


def _unreadable(root: str, file: str, error: OSError) -> ReadError:
    """What is wrong with a file that cannot be opened or read, in the words of `verify`."""
    path = root
    for part in file.split("/"):
        path = os.path.join(path, part)
        if os.path.islink(path):
            trouble, detail = "unreadable", f"{path!r} is a link, which is not followed"
            break
    else:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            trouble, detail = "missing", "it is not there"
        elif os.path.lexists(path) and not os.path.isfile(path):
            trouble, detail = "unreadable", "there is a folder, or something else that is no file, in its place"
        else:
            trouble, detail = "unreadable", f"{type(error).__name__}: {error}"
    return ReadError(f"{file!r}: {detail}", file=file, trouble=trouble, detail=detail)
