"""Reading what lies below a directory: files that are a sample each, and files that hold several."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator

import numpy as np
import xxhash
from numpy.typing import NDArray

from lighter_async.errors import ReadError
from lighter_async.names import RESERVED_PREFIX
from lighter_async.npy import LONGEST_HEADER
from lighter_async.positioned import read_from
from lighter_async.store.base import Finding, Identity, Place
from lighter_async.store.zarr_rows import ZARR, ZarrRows, row_begin
from lighter_async.without_links import open_below, open_with_status_below, remove_below, walk_below

__all__ = ["SHARD_LISTING", "UNSEALED", "DirectoryStore"]

UNSEALED = ".part"
"""What the name of a file ends in that holds several samples, until it is sealed."""

SHARD_LISTING = "shards.json"
"""The list of a directory's tar shards, which is made of them and is no sample."""

_SMALL = 1 << 20  # bytes
_CHUNK = 1 << 20


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
        if place.object.endswith(ZARR) and (row := self._row_of_zarr(place)) is not None:
            return row
        descriptor, status = self._open(place)
        try:
            with io.FileIO(descriptor) as file:
                if not _fits(place, status.st_size):
                    raise self._read_error(place, _wrong_size(place, status.st_size))
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
            raise self._read_error(place, self._why_unreadable(place, error)) from error
        if done < size:
            raise self._read_error(place, _wrong_size(place, done))
        return buffer

    def stat(self, place: Place) -> int:
        """As `Store.stat`: a file's size."""
        if place.object.endswith(ZARR) and (rows := self._zarr(place)) is not None:
            return rows.nbytes
        descriptor, status = self._open(place)
        os.close(descriptor)
        return status.st_size

    def compare(self, place: Place) -> Finding | None:
        """As `Store.compare`, without having all of a large sample in memory."""
        try:
            if place.object.endswith(ZARR) and (row := self._row_of_zarr(place)) is not None:
                found = xxhash.xxh3_64_hexdigest(row)
                return _wrong_checksum(place, found)
            descriptor, status = self._open_raw(place)
            try:
                if not _fits(place, status.st_size):
                    return _wrong_size(place, status.st_size)
                found = _checksum(descriptor, place.offset, place.bytes)
            finally:
                os.close(descriptor)
        except OSError as error:
            return self._why_unreadable(place, error)
        except ReadError as error:
            return Finding(error.trouble, error.detail)
        return _wrong_checksum(place, found)

    def objects(self, *, into: Callable[[str], bool] | None = None) -> Iterator[str]:
        """As `Store.objects`: the files, but for this package's own, and for the list and the indices of shards."""
        arrays = []

        def into_folder(folder: str) -> bool:
            if folder.endswith(ZARR) and row_begin(os.path.join(self._root, folder)) is not None:
                arrays.append(folder)
                return False
            return into is None or into(folder)

        for folder, files in walk_below(self._root, but=RESERVED_PREFIX, into=into_folder):
            shards = {file.removesuffix(UNSEALED).removesuffix(".tar") for file in files if file.startswith("shard-")}
            for file in files:
                if file == SHARD_LISTING and not folder:
                    continue
                if shards and file.endswith(".idx") and file.removesuffix(".idx") in shards:
                    continue
                if not file.startswith(RESERVED_PREFIX):
                    yield f"{folder}/{file}" if folder else file
        yield from arrays

    def has(self, name: str) -> bool:
        """As `Store.has`."""
        path = os.path.join(self._root, name)
        there = os.path.lexists
        # The third look is for one that was sealed between the other two.
        return there(path) or there(path + UNSEALED) or there(path)

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

    def beginning(self, name: str) -> tuple[bytes, int]:
        """As `Store.beginning`."""
        if name.endswith(ZARR) and (rows := _zarr_at(os.path.join(self._root, name))) is not None:
            return rows.header, rows.nbytes
        descriptor = self._open_array(name)
        try:
            return read_from(descriptor, LONGEST_HEADER, 0), os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def mapped(self, name: str) -> NDArray[np.uint8]:
        """As `Store.mapped`. A file that somebody makes shorter meanwhile ends the process that looks at it.

        A zarr array is read as a whole, since its chunks are compressed.
        """
        if name.endswith(ZARR) and (rows := _zarr_at(os.path.join(self._root, name))) is not None:
            return rows.as_file()
        with open(self._open_array(name), "rb") as file:
            return np.memmap(file, np.uint8, "r")

    def _open_array(self, name: str) -> int:
        try:
            return open_below(self._root, name)
        except FileNotFoundError as error:
            try:
                return open_below(self._root, name + UNSEALED)
            except FileNotFoundError:
                raise error from None

    def remove(self, name: str) -> None:
        """As `Store.remove`."""
        try:
            remove_below(self._root, name)
        except (FileNotFoundError, NotADirectoryError):
            pass

    def _zarr(self, place: Place) -> ZarrRows | None:
        """The sealed zarr array that a row lies in; None if it does not, or not yet."""
        try:
            return _zarr_at(os.path.join(self._root, place.object))
        except OSError as error:
            raise self._read_error(place, Finding("unreadable", str(error))) from error

    def _row_of_zarr(self, place: Place) -> memoryview | None:
        rows = self._zarr(place)
        if rows is None:
            return None
        if not _fits(place, rows.nbytes):
            raise self._read_error(place, _wrong_size(place, rows.nbytes))
        try:
            return rows.read(place.offset, place.bytes)
        except OSError as error:
            raise self._read_error(place, Finding("unreadable", str(error))) from error

    def _open(self, place: Place) -> tuple[int, os.stat_result]:
        try:
            return self._open_raw(place)
        except OSError as error:
            raise self._read_error(place, self._why_unreadable(place, error)) from error

    def _open_raw(self, place: Place) -> tuple[int, os.stat_result]:
        try:
            return open_with_status_below(self._root, place.object)
        except FileNotFoundError:
            if place.is_whole_object:
                raise
        try:
            return open_with_status_below(self._root, place.object + UNSEALED)
        except FileNotFoundError:
            return open_with_status_below(self._root, place.object)  # it was sealed between the two looks

    def _why_unreadable(self, place: Place, error: OSError) -> Finding:
        """What is wrong with a file that cannot be opened or read."""
        path = self._root
        for part in place.object.split("/"):
            path = os.path.join(path, part)
            if os.path.islink(path):
                return Finding("unreadable", f"{path!r} is a link, which is not followed")
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return Finding("missing", "it is not there")
        if os.path.lexists(path) and not os.path.isfile(path):
            return Finding("unreadable", "there is a folder, or something else that is no file, in its place")
        return Finding("unreadable", f"{type(error).__name__}: {error}")

    @staticmethod
    def _read_error(place: Place, found: Finding) -> ReadError:
        return ReadError(
            f"{place.object!r}: {found.detail}", file=place.object, trouble=found.trouble, detail=found.detail
        )


def _checksum(descriptor: int, offset: int, size: int | None) -> str:
    """The checksum of a part of a file; without a size of all from the offset on."""
    if size is not None and size <= _SMALL and not offset:
        data = os.read(descriptor, size)
        if len(data) == size:
            return xxhash.xxh3_64_hexdigest(data)
    state = xxhash.xxh3_64()
    os.lseek(descriptor, offset, os.SEEK_SET)
    left = size
    while data := os.read(descriptor, _CHUNK if left is None else min(left, _CHUNK)):
        state.update(data)
        if left is not None:
            left -= len(data)
    return state.hexdigest()


def _zarr_at(path: str) -> ZarrRows | None:
    """The zarr array at a path; None if there is no folder with one, such as where it is a part still."""
    try:
        return None if os.path.islink(path) else ZarrRows(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _wrong_checksum(place: Place, found: str) -> Finding | None:
    return None if found == place.checksum else Finding("wrong checksum", f"{found} instead of {place.checksum}")


def _fits(place: Place, size: int) -> bool:
    """Whether a sample can be in a file of some size."""
    return size == place.bytes if place.is_whole_object else size >= place.offset + place.bytes


def _wrong_size(place: Place, size: int) -> Finding:
    if place.is_whole_object:
        return Finding("wrong size", f"it has {size} bytes instead of {place.bytes}")
    return Finding(
        "wrong size", f"it ends at byte {size}, and the sample is {place.bytes} bytes from byte {place.offset} on"
    )
