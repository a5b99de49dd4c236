"""The rows of one array: all of them at once, and which of them are there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighter_async.errors import ReadError
from lighter_async.manifest.block import Block
from lighter_async.npy import Header, numpy_dtype, parse
from lighter_async.store import Store

__all__ = ["StoredRows", "stored_rows"]


@dataclass(frozen=True)
class StoredRows:
    """An array as far as it is stored.

    Attributes:
        name: The object's name.
        store: What reads it.
        header: What it says of itself.
        mask: Which of its rows are stored, of as many as there are to be.
        count: How many rows there are up to the last one that is stored.
    """

    name: str
    store: Store
    header: Header
    mask: NDArray[np.bool_]
    count: int

    def to_array(self) -> NDArray[Any]:
        """The rows that are stored: the mapped file if they are all that there are to be, else a copy of them.

        Raises:
            ReadError: The object cannot be read.
        """
        try:
            data = self.store.mapped(self.name)
        except (OSError, ValueError) as error:
            raise _unreadable(self.name, self.store, error) from error
        end = self.header.nbytes + self.count * _row_bytes(self.header)
        if end > data.size:
            raise _too_short(self.name, self.store, data.size, end)
        array = data[self.header.nbytes : end].view(self.header.dtype).reshape(self.count, *self.header.shape[1:])
        if self.mask.all():
            return array
        return np.asarray(array)[self.mask[: self.count]]


def stored_rows(blocks: Sequence[Block], store: Store) -> StoredRows | None:
    """The rows of an array; None if the records are not those of one.

    Args:
        blocks: The records.
        store: What reads them.

    Raises:
        ReadError: The file is gone, or is not as recorded.
    """
    objects = {block.head.object if block.head.is_array else None for block in blocks}
    if len(objects) != 1 or None in objects:
        return None
    (name,) = objects
    assert name is not None
    try:
        beginning, nbytes = store.beginning(name)
    except (OSError, ValueError) as error:
        raise _unreadable(name, store, error) from error
    try:
        found = parse(beginning)
        kinds = {(numpy_dtype(block.head.dtype or ""), block.head.shape) for block in blocks}
    except (ValueError, TypeError) as error:
        raise _error(name, store, "not decoded", str(error)) from error
    if not found.shape or kinds != {(found.dtype, found.shape[1:])} or not _row_bytes(found):
        told = " and ".join(f"{dtype} of shape {shape}" for dtype, shape in kinds)
        raise _error(name, store, "not decoded", f"it has {found.dtype} of shape {found.shape}, and rows are {told}")
    offsets = np.concatenate([block.offset_column() for block in blocks]).astype(np.int64)
    rows, rest = np.divmod(offsets - found.nbytes, _row_bytes(found))
    count = int(rows.max()) + 1
    size = found.nbytes + max(count, found.shape[0]) * _row_bytes(found)
    if rest.any() or int(rows.min()) < 0 or size > nbytes:
        raise _too_short(name, store, nbytes, size)
    mask = np.zeros(max(found.shape[0], count), np.bool_)
    mask[rows] = True
    return StoredRows(name, store, found, mask, count)


def _row_bytes(found: Header) -> int:
    count = found.dtype.itemsize
    for one in found.shape[1:]:
        count *= one
    return count


def _unreadable(name: str, store: Store, error: Exception) -> ReadError:
    return _error(name, store, "missing" if isinstance(error, FileNotFoundError) else "unreadable", str(error))


def _too_short(name: str, store: Store, nbytes: int, end: int) -> ReadError:
    return _error(name, store, "wrong size", f"it has {nbytes} bytes, and its rows end at byte {end}")


def _error(name: str, store: Store, trouble: str, detail: str) -> ReadError:
    path = os.path.join(store.location, name)
    return ReadError(f"array {path!r} cannot be read: {detail}", file=name, trouble=trouble, detail=detail)
