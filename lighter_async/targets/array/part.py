"""An array that is being written: a file that several workers have open, each for itself."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from lighter_async.locks.flock import is_at, own
from lighter_async.npy import numpy_dtype

__all__ = ["Kind", "Layout", "Part", "write_at"]

Kind: TypeAlias = "tuple[str, tuple[int, ...]]"
"""The name of a dtype, and a shape."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where rows lie in the file.

    Attributes:
        dtype: Of the elements.
        shape: Of a row.
        begin: Where the first row begins, in bytes.
        row_bytes: The size of a row.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    row_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "row_bytes", math.prod(self.shape) * self.dtype.itemsize)

    def offset(self, row: int) -> int:
        """Where a row begins; the end of the row before it."""
        return self.begin + row * self.row_bytes

    def rows_in(self, size: int) -> int:
        """How many rows a file of some size has, with one that is not whole."""
        return max(0, -(-(size - self.begin) // self.row_bytes))

    def is_of(self, kind: Kind) -> bool:
        """Whether its rows are of a kind."""
        return self.shape == kind[1] and self.dtype == numpy_dtype(kind[0])

    def __str__(self) -> str:
        return f"{self.dtype} of shape {self.shape}"


@dataclass(slots=True, eq=False)
class Part:
    """An open part, which nobody seals as long as it is.

    Attributes:
        path: Where it lies.
        descriptor: Of the open file.
        layout: Of its rows.
    """

    path: str
    descriptor: int
    layout: Layout

    @property
    def is_there(self) -> bool:
        """Whether it is still where it was: else somebody has removed it, or the directory."""
        try:
            return is_at(self.descriptor, self.path)
        except OSError:
            return False

    def sync(self) -> None:
        """Have what is written on the disk.

        Raises:
            OSError: It may not be there.
        """
        getattr(os, "fdatasync", os.fsync)(self.descriptor)

    def close(self) -> None:
        """Let go of it. It may be called again."""
        descriptor, self.descriptor = self.descriptor, -1
        own.close(descriptor)

    def __del__(self) -> None:
        self.close()  # of a lane that nobody has closed


def write_at(descriptor: int, pieces: Sequence[memoryview | bytes], place: int) -> None:
    """Write pieces one behind the other, all of them.

    Raises:
        OSError: They could not be written, or not all. What is written of them is recorded nowhere.
    """
    for piece in pieces:
        left = memoryview(piece).cast("B") if memoryview(piece).nbytes else memoryview(b"")
        while left:
            # A write may be short (2 GiB, a disk that has just filled up): the next one goes on, or tells why not.
            written = os.pwrite(descriptor, left, place)
            if not written:
                raise OSError(errno.EIO, "nothing was written")
            place += written
            left = left[written:]
