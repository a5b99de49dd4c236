"""Reading what lies below a directory: files that are a sample each, and files that hold several."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator

import numpy as np
import xxhash

from lighter_async.below import open_below, remove_below, walk_below
from lighter_async.errors import ReadError
from lighter_async.names import RESERVED_PREFIX
from lighter_async.store.base import Finding, Identity, Place

__all__ = ["SHARD_LISTING", "UNSEALED", "DirectoryStore"]

UNSEALED = ".part"
"""What the name of a file ends in that holds several samples, until it is sealed."""

SHARD_LISTING = "shards.json"
"""The list of a directory's tar shards, which is made of them and is no sample."""

_SMALL = 1 << 20  # bytes
_CHUNK = 1 << 20
_NO_FILE = frozenset({errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EMLINK})


class DirectoryStore:
    """Reads below a directory, and follows no link there. It is a `Store`.

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
        """As `Store.read`. A large sample comes as a view of writable memory."""
        descriptor = self._open(place)
        try:
            with io.FileIO(descriptor) as file:
                self._check_size(descriptor, place)
                if place.offset:
                    file.seek(place.offset)
                size = place.bytes
                if size <= _SMALL:
                    data = file.read(size) if size else b""
                    if len(data) == size:
                        return data
                    file.seek(place.offset)
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
        descriptor = self._open(place)
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def compare(self, place: Place) -> Finding | None:
        """As `Store.compare`, without having all of a large sample in memory."""
        try:
            descriptor = self._open_raw(place)
        except (FileNotFoundError, NotADirectoryError):
            return Finding("missing", "it is not there")
        except OSError as error:
            return Finding("unreadable", self._why_unreadable(place.object, error))
        try:
            size = os.fstat(descriptor).st_size
            if place.is_whole_object and size != place.bytes:
                return Finding("wrong size", f"{size} bytes instead of {place.bytes}")
            if size < place.offset + place.bytes:
                return Finding("wrong size", f"{_beyond(place, size)}")
            found = _checksum(descriptor, place.offset, place.bytes)
        except OSError as error:
            return Finding("unreadable", self._why_unreadable(place.object, error))
        finally:
            os.close(descriptor)
        return None if found == place.checksum else Finding("wrong checksum", f"{found} instead of {place.checksum}")

    def objects(self) -> Iterator[str]:
        """As `Store.objects`: the files, but for this package's own, and for the list and the indices of shards."""
        for folder, files in walk_below(self._root, but=RESERVED_PREFIX):
            shards = {file.removesuffix(UNSEALED).removesuffix(".tar") for file in files if file.startswith("shard-")}
            for file in files:
                if file == SHARD_LISTING and not folder:
                    continue
                if shards and file.endswith(".idx") and file.removesuffix(".idx") in shards:
                    continue
                if not file.startswith(RESERVED_PREFIX):
                    yield f"{folder}/{file}" if folder else file

    def has(self, name: str) -> bool:
        """As `Store.has`."""
        path = os.path.join(self._root, name)
        return os.path.lexists(path) or os.path.lexists(path + UNSEALED)

    def identity(self, name: str) -> Identity | None:
        """As `Store.identity`: a file's size, time of change and inode; a link is one by itself."""
        try:
            status = os.lstat(os.path.join(self._root, name))
        except OSError:
            return None
        return Identity(status.st_size, status.st_mtime_ns, status.st_ino)

    def checksum(self, name: str) -> str:
        """As `Store.checksum`."""
        descriptor = open_below(self._root, name)
        try:
            return _checksum(descriptor, 0, None)
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> None:
        """As `Store.remove`."""
        try:
            remove_below(self._root, name)
        except (FileNotFoundError, NotADirectoryError):
            pass

    def _open(self, place: Place) -> int:
        try:
            return self._open_raw(place)
        except OSError as error:
            raise _unreadable(self._root, place.object, error) from error

    def _open_raw(self, place: Place) -> int:
        try:
            return open_below(self._root, place.object)
        except FileNotFoundError:
            if place.is_whole_object:
                raise
        try:
            return open_below(self._root, place.object + UNSEALED)
        except FileNotFoundError:
            return open_below(self._root, place.object)  # it was sealed between the two looks

    def _check_size(self, descriptor: int, place: Place) -> None:
        size = os.fstat(descriptor).st_size
        if size != place.bytes if place.is_whole_object else size < place.offset + place.bytes:
            raise _wrong_size(place, size)

    def _why_unreadable(self, name: str, error: OSError) -> str:
        path = os.path.join(self._root, name)
        if os.path.islink(path):
            return f"a link to {os.readlink(path)!r} in its place, which is not followed"
        if os.path.isdir(path):
            return "there is a folder in its place"
        if error.errno in _NO_FILE:
            return "it is no file, or is reached through a link"
        return f"{type(error).__name__}: {error}"


def _checksum(descriptor: int, offset: int, size: int | None) -> str:
    state = xxhash.xxh3_64()
    os.lseek(descriptor, offset, os.SEEK_SET)
    left = size
    while data := os.read(descriptor, _CHUNK if left is None else min(left, _CHUNK)):
        state.update(data)
        if left is not None:
            left -= len(data)
    return state.hexdigest()


def _beyond(place: Place, size: int) -> str:
    return f"it ends at byte {size}, and the sample is {place.bytes} bytes from byte {place.offset} on"


def _wrong_size(place: Place, size: int) -> ReadError:
    detail = f"it has {size} bytes instead of {place.bytes}" if place.is_whole_object else _beyond(place, size)
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
