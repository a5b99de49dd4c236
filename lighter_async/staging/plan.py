"""The plan of a batch: a place in a slot for every tensor and array, and what is cloned or kept instead."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lighter_async.staging.kinds import dtype_of, text_bytes
from lighter_async.staging.places import Kept, Leaf, Loose, Text

if TYPE_CHECKING:
    import torch

__all__ = ["LONG_TEXT", "Foreign", "NoData", "Plan"]

LONG_TEXT = 4096  # bytes; longer texts for helpers lie in the slot
_ALIGNMENT = 64  # of every leaf; a cache line, and more than any dtype's itemsize
_ITEM_BYTES = 64  # of an item of a container besides its text or its place in the slot; a dict's key is one, too
_LEAF_BYTES = 256  # of what says where a tensor in one lies, here and in the helpers' letter
_MOST_WALKED = 1000  # items of a value; a larger one is pickled, which takes less time and memory


@dataclass(slots=True)
class Plan:
    """The plan of a batch.

    Attributes:
        shared: Whether other processes are to read it. If so, long texts lie in the slot, too.
        count: Samples in the batch.
        nbytes: Bytes that it takes in the slot.
        other_bytes: Bytes that it takes outside the slot, such as those of texts.
        rows: The place of the whole batch, if that is one tensor or array with a sample per row.
        columns: The same of each output, or column, where samples have several; or the values of one that is no dense
            batch, with places in them.
        values: The samples otherwise, with places in them.
        sources: The tensors and arrays to copy, each with its place.
        loose: The tensors and arrays to clone.
        kept: Objects that are referred to or handed over as they are, such as classes.
        has_classes: Whether a value is a named tuple.
    """

    shared: bool = False
    count: int = 0
    nbytes: int = 0
    other_bytes: int = 0
    rows: Leaf | None = None
    columns: dict[str, Leaf | list[Any]] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)
    sources: list[tuple[Leaf, Any]] = field(default_factory=list)
    loose: list[Any] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    has_classes: bool = False
    _kept_at: dict[int, int] = field(default_factory=dict)
    _walked: int = 0

    @property
    def tensors(self) -> list[Any]:
        """The tensors to copy and to clone."""
        copied = [source for leaf, source in self.sources if leaf.is_tensor]
        return copied + [value for value in self.loose if not isinstance(value, np.ndarray)]

    def place(self, array: Any, *, is_tensor: bool) -> Leaf:
        if is_tensor:
            leaf = _leaf_of_tensor(array.dtype, array.shape, self.nbytes)
        else:
            leaf = Leaf(array.dtype, tuple(array.shape), self.nbytes, array.nbytes, False)
        self.sources.append((leaf, array))
        self.nbytes += -(-leaf.nbytes // _ALIGNMENT) * _ALIGNMENT
        return leaf

    def place_bytes(self, data: Any) -> Leaf:
        return self.place(np.frombuffer(data, np.uint8), is_tensor=False)

    def clone(self, value: Any, nbytes: int) -> Loose:
        self.loose.append(value)
        self.other_bytes += nbytes * (2 if self.shared else 1)  # a second time in the helpers' letter
        return Loose(len(self.loose) - 1)

    def keep(self, thing: Any, nbytes: int = 0) -> Kept:
        number = self._kept_at.setdefault(id(thing), len(self.kept))
        if number == len(self.kept):
            self.kept.append(thing)
            self.other_bytes += nbytes * (2 if self.shared else 1)
        return Kept(number)

    def text(self, value: Any) -> Any:
        """A text or bytes, or its place."""
        kind = type(value)
        nbytes = text_bytes(value)
        if self.shared and nbytes >= LONG_TEXT and kind in (str, bytes, bytearray):
            return Text(self.place_bytes(value.encode("utf-8", "surrogatepass") if kind is str else value), kind)
        self.other_bytes += nbytes
        return bytearray(value) if kind is bytearray else value

    def walks(self, items: int) -> None:
        """Count items of a container in the value that is being walked through.

        Raises:
            Foreign: There are too many.
        """
        self._walked += items
        if self._walked > _MOST_WALKED:
            raise Foreign
        self.other_bytes += items * _ITEM_BYTES

    def lists(self, items: int) -> None:
        """Count the values of a column that is a list."""
        self.other_bytes += items * _ITEM_BYTES

    def place_inside(self) -> None:
        """Count what says where a tensor or an array of a container or an object lies."""
        self.other_bytes += _LEAF_BYTES

    def begin(self) -> tuple[int, int, int, int]:
        """Begin with a value; returns a mark for `undo`."""
        self._walked = 0
        return self.nbytes, self.other_bytes, len(self.sources), len(self.loose)

    def undo(self, mark: tuple[int, int, int, int]) -> None:
        """Undo what was placed since the mark. What is kept stays, since it may have been kept before."""
        self.nbytes, self.other_bytes, sources, loose = mark
        del self.sources[sources:], self.loose[loose:]


@functools.lru_cache(maxsize=64)  # since the next batch is mostly like this one
def _leaf_of_tensor(dtype: torch.dtype, shape: Sequence[int], offset: int) -> Leaf:
    name, itemsize = dtype_of(dtype)
    return Leaf(name, tuple(shape), offset, math.prod(shape) * itemsize, True)


class Foreign(Exception):
    """A value is not a tensor, array, text or number, nor a plain container of these."""


class NoData(ValueError):
    """A tensor has no data to write."""
