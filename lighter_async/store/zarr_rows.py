"""The rows of a sealed zarr array, read at the places that they had in the file they were gathered in.

Rows are recorded by their offsets in that file, which holds numpy's format, and which is gone once the array is sealed.
So the array says where its first row began, in its attributes: https://zarr-specs.readthedocs.io/en/latest/v3/core/.
"""

from __future__ import annotations

import json
import math
import os
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighter_async.npy import header
from lighter_async.optional_packages import optional

__all__ = ["ATTRIBUTE", "ZARR", "ZarrRows", "row_begin"]

ZARR = ".zarr"
"""What the name of a zarr array ends in."""

ATTRIBUTE = "lighter_async"
"""The attribute of an array of ours: a dict with ``first_row``, the offset of row 0."""

_MOST_KEPT = 16 << 20  # bytes of a block of rows that is kept for the next row of it


def row_begin(path: str | os.PathLike[str]) -> int | None:
    """The offset of the first row of a zarr array that was sealed here; None if there is no such array."""
    try:
        with open(os.path.join(path, "zarr.json"), "rb") as file:
            begin = json.load(file)["attributes"][ATTRIBUTE]["first_row"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return begin if type(begin) is int and begin > 0 else None


def _open_zarr(path: str | os.PathLike[str]) -> Any:
    """Open an array of zarr's to read it.

    Raises:
        ImportError: zarr is not installed. That is no damage, which a repair would take it for.
        OSError: There is no such array.
    """
    with optional(f"{os.fspath(path)!r} is read by zarr", "zarr"):
        import zarr

    try:
        return zarr.open_array(os.fspath(path), mode="r")
    except Exception as error:  # whatever zarr makes of files that may be anybody's
        raise OSError(f"{path!r} is no zarr array that can be read ({type(error).__name__}: {error})") from error


class ZarrRows:
    """A sealed array, as the file of rows that it was made of.

    Args:
        path: Of the array.

    Attributes:
        begin: Where the first row began.
        dtype: Of the elements.
        shape: Of the array.
        block: How many rows lie in chunks with each other.

    Raises:
        FileNotFoundError: There is none.
        OSError: It is no array that can be read.
        ImportError: zarr is not installed.
    """

    def __init__(self, path: str) -> None:
        status = os.stat(os.path.join(path, "zarr.json"))
        self.begin, self._array = _opened(path, status.st_ino, status.st_mtime_ns)
        self._path = path
        self.dtype: np.dtype[Any] = self._array.dtype
        self.shape: tuple[int, ...] = self._array.shape
        self.block: int = self._array.chunks[0]

    @property
    def row_bytes(self) -> int:
        """The size of a row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """How large the file was."""
        return self.begin + self.shape[0] * self.row_bytes

    @property
    def header(self) -> bytes:
        """What the file began with."""
        return header(self.dtype, self.shape, self.begin)

    def read(self, offset: int, nbytes: int) -> memoryview:
        """The bytes of a row, in memory of the caller's own.

        Args:
            offset: Where it was.
            nbytes: Its size.

        Raises:
            OSError: There is no row there, or its chunk is gone or damaged.
        """
        row, rest = divmod(offset - self.begin, self.row_bytes)
        if rest or not 0 <= row < self.shape[0] or nbytes != self.row_bytes:
            raise OSError(f"no row of {self._path!r} has {nbytes} bytes from byte {offset} on")
        block = row // self.block
        if self.block * self.row_bytes > _MOST_KEPT:
            return memoryview(self.rows(row, row + 1).tobytes())
        rows = _block(self, block, self._states(block))
        return memoryview(rows[row - block * self.block].tobytes())

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Some rows that follow each other.

        Raises:
            OSError: A chunk of theirs is gone or damaged.
        """
        for block in range(start // self.block, -(-stop // self.block)):
            self._states(block)
        try:
            found: NDArray[Any] = np.ascontiguousarray(self._array[start:stop])
        except Exception as error:  # of any codec
            raise OSError(
                f"rows {start} to {stop - 1} of {self._path!r} cannot be decoded ({type(error).__name__}: {error})"
            ) from error
        return found

    def as_file(self) -> NDArray[np.uint8]:
        """All bytes of the file, its header included.

        Raises:
            OSError: A chunk is gone or damaged.
        """
        data = np.empty(self.nbytes, np.uint8)
        data[: self.begin] = np.frombuffer(self.header, np.uint8)
        data[self.begin :] = self.rows(0, self.shape[0]).reshape(-1).view(np.uint8)
        data.flags.writeable = False
        return data

    def _states(self, block: int) -> tuple[tuple[int, int, int], ...]:
        """What tells the chunks of a block of rows from later ones.

        Raises:
            OSError: One of them is gone, which zarr would take for one of zeros.
        """
        counts = [-(-size // chunk) for size, chunk in zip(self.shape[1:], self._array.chunks[1:], strict=True)]
        states = []
        for place in np.ndindex(*counts):
            chunk = os.path.join(self._path, "c", str(block), *map(str, place))
            try:
                status = os.stat(chunk)
            except FileNotFoundError:
                raise OSError(f"chunk {chunk!r} is gone") from None
            states.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(states)

    def __hash__(self) -> int:
        return hash((self._path, id(self._array)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZarrRows) and self._path == other._path and self._array is other._array


@lru_cache(8)
def _opened(path: str, number: int, changed: int) -> tuple[int, Any]:
    begin = row_begin(path)
    if begin is None:
        raise OSError(f"{path!r} is no zarr array that was stored as rows")
    return begin, _open_zarr(path)


@lru_cache(8)
def _block(rows: ZarrRows, block: int, states: object) -> NDArray[Any]:
    start = block * rows.block
    return rows.rows(start, min(start + rows.block, rows.shape[0]))
