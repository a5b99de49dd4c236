"""An array that is being written: a file that several workers have open, each for itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from lighter_async.npy import numpy_dtype
from lighter_async.targets.open_part import OpenPart

__all__ = ["Kind", "Layout", "Part"]

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
class Part(OpenPart):
    """An open part, which nobody seals as long as it is.

    Attributes:
        layout: Of its rows.
    """

    layout: Layout
