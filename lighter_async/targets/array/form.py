"""What becomes of a part once all of its rows are stored, and of a complete array that is to take rows again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lighter_async.npy import header
from lighter_async.targets.array.part import Layout
from lighter_async.whole_files import write_at

__all__ = ["Form", "Npy"]


class Form(Protocol):
    """The form of a complete array. All of it is done by one process at a time."""

    def check(self, dtype: np.dtype[Any]) -> None:
        """
        Raises:
            TypeError: It holds no such elements.
        """
        ...

    def is_other(self, path: str) -> str:
        """Why what lies in the array's place is none that may be replaced; empty if it may, or nothing lies there."""
        ...

    def seal(self, descriptor: int, layout: Layout, rows: int, *, part: str, path: str) -> None:
        """Make an array of a part, under its name and on the disk.

        Args:
            descriptor: Of the part.
            layout: Of its rows.
            rows: How many there are.
            part: Where the part lies.
            path: Where the array is to lie.

        Raises:
            OSError: The part stays as it is.
            ReadError: Rows of it are gone.
        """
        ...

    def as_part(self, path: str) -> str:
        """Where something lies that can be renamed to a part, with the rows of a complete array.

        Raises:
            OSError: It cannot be made.
        """
        ...

    def remove(self, path: str) -> None:
        """Remove a complete array whose rows are in a part again; there may be none.

        Raises:
            OSError: It cannot be removed.
        """
        ...


@dataclass(frozen=True)
class Npy:
    """A ``.npy`` file, which the part becomes where it lies."""

    def check(self, dtype: np.dtype[Any]) -> None:
        """A file holds all that a part does."""

    def is_other(self, path: str) -> str:
        return "is a folder, so no array can lie there" if os.path.isdir(path) else ""

    def seal(self, descriptor: int, layout: Layout, rows: int, *, part: str, path: str) -> None:
        write_at(descriptor, [header(layout.dtype, (rows, *layout.shape), layout.begin)], 0)
        os.ftruncate(descriptor, layout.offset(rows))
        os.fsync(descriptor)
        os.rename(part, path)

    def as_part(self, path: str) -> str:
        return path

    def remove(self, path: str) -> None:
        """There is none: it is the part."""
