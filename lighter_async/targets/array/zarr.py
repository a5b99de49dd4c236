"""The form of a zarr array: whole chunks, written once all rows are there, by whoever stored the last of them.

So no chunk belongs to two workers or ranks, whose writes would take each other's rows away. Until then rows lie in a
part like that of a ``.npy`` file, which is removed when the array has its name. A crash in between leaves both, with
the same rows: then the part is what counts, and the array is made anew.
"""

from __future__ import annotations

import errno
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from lighter_async.errors import ReadError
from lighter_async.names import RESERVED_PREFIX
from lighter_async.npy import header
from lighter_async.optional_packages import optional
from lighter_async.positioned import read_from
from lighter_async.store.zarr_rows import ATTRIBUTE, ZarrRows, row_begin
from lighter_async.targets.array.part import Layout
from lighter_async.targets.array.recorded import Recorded
from lighter_async.targets.local import LocalTarget
from lighter_async.whole_files import remove, sync_folder, write_at

__all__ = ["Zarr", "check_installed", "scratch_of"]

_CHUNK = 4 << 20  # bytes that a chunk has of small rows
_LARGEST_CHUNK = 256 << 20  # bytes; compressors take less than 2 GiB at once
_KINDS = "biufc"


def check_installed() -> None:
    """
    Raises:
        ImportError: zarr, which writes the array in the end, is not installed.
    """
    with optional("a .zarr array is written by zarr", "zarr"):
        import zarr  # noqa: F401  (once, at the start, since nothing may be computed that cannot be sealed)


def scratch_of(root: str, name: str) -> str:
    """Where an array is made: a folder of its own, on its file system."""
    return os.path.join(root, RESERVED_PREFIX, f"zarr-{xxhash.xxh3_64_hexdigest(os.fsencode(name))}")


@dataclass(frozen=True)
class Zarr:
    """A directory of compressed chunks, of zarr's third format.

    Attributes:
        scratch: A folder of this array's own, on its file system.
        chunk_rows: The rows of a chunk. None: as many as make 4 MiB.
        recorded: Which rows are recorded.
        files: Writes files beside it.
    """

    scratch: str
    chunk_rows: int | None
    recorded: Recorded
    files: LocalTarget

    def check(self, dtype: np.dtype[Any]) -> None:
        if dtype.kind not in _KINDS:
            raise TypeError(
                f"a zarr array is made of numbers or booleans, not of {dtype}, which its format does not fix yet; "
                "store it as .npy, or take its bits as whole numbers (array.view('int64') of times)"
            )

    def is_other(self, path: str) -> str:
        if not os.path.lexists(path) or (not os.path.islink(path) and row_begin(path) is not None):
            return ""
        return "is there, and is no zarr array that was stored here"

    def seal(self, descriptor: int, layout: Layout, rows: int, *, part: str, path: str) -> None:
        _remove_folder(self.scratch)
        os.makedirs(self.scratch)
        made = os.path.join(self.scratch, "made")
        try:
            self._write(descriptor, layout, rows, part=part, made=made)
            _sync(made)
            self.remove(path)
            os.rename(made, path)
            sync_folder(os.path.dirname(path))
            os.unlink(part)
        finally:
            _remove_folder(self.scratch)

    def _write(self, descriptor: int, layout: Layout, rows: int, *, part: str, made: str) -> None:
        import zarr

        chunk = self._chunk(layout, rows)
        kept: Any = {"write_empty_chunks": True}  # a chunk that is not there is one that was lost
        try:
            array: Any = zarr.create_array(
                made,
                shape=(rows, *layout.shape),
                chunks=chunk,
                dtype=layout.dtype,
                attributes={ATTRIBUTE: {"first_row": layout.begin}},
                config=kept,
            )
            for start in range(0, rows, chunk[0]):
                stop = min(start + chunk[0], rows)
                array[start:stop] = _rows_between(descriptor, layout, start, stop, part)
        except (OSError, ReadError):
            raise
        except Exception as error:  # of zarr or a codec: the rows stay in the part
            raise OSError(errno.EIO, f"zarr cannot write it ({type(error).__name__}: {error})", made) from error

    def _chunk(self, layout: Layout, rows: int) -> tuple[int, ...]:
        count = self.chunk_rows or max(1, _CHUNK // layout.row_bytes)
        chunk = [min(count, rows), *layout.shape]
        while math.prod(chunk) * layout.dtype.itemsize > _LARGEST_CHUNK:
            axis = max(range(1, len(chunk)), key=chunk.__getitem__) if max(chunk[1:], default=1) > 1 else 0
            chunk[axis] = -(-chunk[axis] // 2)
        return tuple(chunk)

    def as_part(self, path: str) -> str:
        rows = ZarrRows(path)
        start = header(rows.dtype, rows.shape, rows.begin)
        temporary, descriptor = self.files.write(os.path.basename(path), [memoryview(start)])
        try:
            try:
                layout = Layout(rows.dtype, rows.shape[1:], rows.begin)
                os.ftruncate(descriptor, layout.offset(rows.shape[0]))
                counted: NDArray[np.int64] | None = None
                for first in range(0, rows.shape[0], rows.block):
                    last = min(first + rows.block, rows.shape[0])
                    try:
                        write_at(
                            descriptor, [rows.rows(first, last).reshape(-1).view(np.uint8).data], layout.offset(first)
                        )
                    except OSError as error:
                        if error.errno is not None:
                            raise
                        # Rows that nobody counts on, as after a repair, may be lost.
                        counted = self.recorded.rows(layout) if counted is None else counted
                        if np.any((counted >= first) & (counted < last)):
                            raise OSError(
                                f"{error}; 'lighter-async verify DIR --repair' takes back the rows that are lost, and "
                                "a run with resume=True computes them again"
                            ) from error
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            remove(temporary)
            raise
        return temporary

    def remove(self, path: str) -> None:
        if not os.path.lexists(path):
            return
        if why := self.is_other(path):
            raise OSError(errno.EEXIST, f"it {why}; remove it, or choose another path", path)
        # Gone at once, and not by and by: nobody finds half of it.
        os.makedirs(self.scratch, exist_ok=True)
        gone = os.path.join(self.scratch, f"gone-{os.urandom(6).hex()}")
        os.rename(path, gone)
        _remove_folder(gone)


def _rows_between(descriptor: int, layout: Layout, start: int, stop: int, part: str) -> NDArray[Any]:
    """Rows of a part, which are read and not mapped: a mapped file that cannot be read ends the process (SIGBUS).

    Raises:
        OSError: They cannot be read.
        ReadError: Somebody has cut them off.
    """
    found = np.empty((stop - start, *layout.shape), layout.dtype)
    left, place = found.reshape(-1).view(np.uint8).data, layout.begin + start * layout.row_bytes
    while left:
        some = read_from(descriptor, min(len(left), _CHUNK), place)
        if not some:
            raise ReadError(
                f"{part!r} was cut short while its array was made, before row {stop}: lighter-async verify "
                f"{os.path.dirname(part)!r} --repair takes back what is gone, and a run with resume=True computes it "
                "again"
            )
        left[: len(some)] = some
        left, place = left[len(some) :], place + len(some)
    return found


def _remove_folder(path: str) -> None:
    """Remove what may be half there, as far as it can be; the rest is cleared by the next one."""
    import shutil  # here, since it imports compressors

    shutil.rmtree(path, ignore_errors=True)


def _sync(folder: str) -> None:
    """Have all files below a folder, and their names, on the disk."""
    for path, _, files in os.walk(folder, topdown=False):
        for one in (*(os.path.join(path, file) for file in files), path):
            descriptor = os.open(one, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
