"""Places: where the pieces of a staged value lie, and how each is read back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighter_async.plain_memory import Block, Rows

__all__ = ["Kept", "Leaf", "Loose", "PickledObject", "Text"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """Where one tensor or array lies in a slot, in bytes, C-contiguous.

    The `dtype` of a tensor is torch's name without ``torch.``, so that readers need not import torch.
    """

    dtype: Any
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    is_tensor: bool

    def view(self, memory: NDArray[np.uint8]) -> Any:
        """The tensor or array, as a view of the slot. Its storage is its own bytes, so saving it saves only those."""
        return _view(self.bytes(memory), self.dtype, self.shape, self.is_tensor)

    def row(self, memory: NDArray[np.uint8], index: int) -> Any:
        """The same for row `index`."""
        return _view(self._row(memory, index), self.dtype, self.shape[1:], self.is_tensor)

    def place_of_row(self, index: int) -> Leaf:
        """The place of row `index`."""
        size = self.nbytes // self.shape[0]
        return Leaf(self.dtype, self.shape[1:], self.offset + size * index, size, self.is_tensor)

    def block(self, memory: NDArray[np.uint8]) -> Block | None:
        """The tensor as plain memory; None for an array, and for a tensor without elements."""
        return self._block(self.bytes(memory), self.shape)

    def row_block(self, memory: NDArray[np.uint8], index: int) -> Block | None:
        """The same for row `index`."""
        return self._block(self._row(memory, index), self.shape[1:])

    def rows_between(self, memory: NDArray[np.uint8], start: int, stop: int) -> Rows | None:
        """The rows from `start` to `stop` as plain memory; None of rows without elements, and of arrays of objects."""
        count = self.shape[0]
        size = self.nbytes // count if count else 0
        if not size:
            return None
        begin = self.offset + start * size
        some = memory[begin : begin + (stop - start) * size].reshape(stop - start, size)
        dtype = self.dtype if isinstance(self.dtype, str) else str(self.dtype)
        return Rows(dtype, self.shape[1:], some, self.is_tensor)

    def bytes(self, memory: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Its bytes of the slot's memory."""
        return memory[self.offset : self.offset + self.nbytes]

    def _row(self, memory: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        size = self.nbytes // self.shape[0]
        start = self.offset + index * size
        return memory[start : start + size]

    def _block(self, memory: NDArray[np.uint8], shape: tuple[int, ...]) -> Block | None:
        if not self.is_tensor or not memory.size:
            return None
        return Block(self.dtype, shape, memory)


@dataclass(frozen=True, slots=True)
class Loose:
    """A tensor or array that is cloned outside the slot, by its index in `Plan.loose`."""

    index: int


@dataclass(frozen=True, slots=True)
class Kept:
    """An object that is handed over as it is, by its index in `Plan.kept`."""

    index: int


@dataclass(frozen=True, slots=True)
class Text:
    """A long text, or bytes, in the slot."""

    data: Leaf
    kind: type[str] | type[bytes] | type[bytearray]

    def read(self, memory: NDArray[np.uint8]) -> str | bytes | bytearray:
        found = self.data.bytes(memory)
        return str(found.data, "utf-8", "surrogatepass") if self.kind is str else self.kind(found.data)


@dataclass(frozen=True, slots=True)
class PickledObject:
    """An object of a user's own: its pickle in the slot, and the places that the pickle refers to by number."""

    data: Leaf
    places: tuple[Leaf | Loose | Kept, ...]


def _view(memory: NDArray[np.uint8], dtype: Any, shape: tuple[int, ...], is_tensor: bool) -> Any:
    if not is_tensor:
        array = memory.view(dtype).reshape(shape) if memory.size else np.empty(shape, dtype)
        array.flags.writeable = False
        return array
    import torch

    if not memory.size:
        return torch.empty(shape, dtype=getattr(torch, dtype), device="cpu")
    return torch.from_numpy(memory).view(getattr(torch, dtype)).view(shape)
