"""Rows of a table from whole columns: all of them laid out alike, so that a unit takes a few calls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lighter_async.plain_memory import EncodedRows, Rows
from lighter_async.table_row import DTYPES, Layout, layout_of, pack, pack_row, packed_array, packed_room

__all__ = ["encode_columns", "no_dtype", "widened"]

_STEP = 8  # bytes, by which room grows, so that most units are laid out alike
_MOST = 1 << 63
_SMALL = 1024  # bytes that may be spent on room in any case


class _Column(NamedTuple):
    """A column as it is written.

    Attributes:
        like: A value, as `pack_row` takes it, that lies in a row as all of them do.
        data: The bytes of each value, where they differ from one to the next: 2-d.
        spare: How many bytes of it all are zeros that nobody needs.
    """

    like: Any
    data: NDArray[np.uint8]
    spare: int = 0


def encode_columns(columns: Mapping[str, Rows | list[Any]]) -> EncodedRows | None:
    """The rows of several samples, all of one size.

    Args:
        columns: The elements of arrays, or texts, numbers or bools, and None where there is nothing.

    Returns:
        The rows. None if a column has several types or numbers of more than 64 bits, so that each sample is told what
        is wrong with it; or if values differ so much in length that room for them takes more than the rows do.

    Raises:
        TypeError: A table has no such column.
        UnicodeEncodeError: A text is not valid.
    """
    found: dict[str, _Column] = {}
    for key, one in columns.items():
        column = _of_elements(one, key) if isinstance(one, Rows) else _of_values(one)
        if column is None:
            return None
        found[key] = column
    row = pack_row({key: column.like for key, column in found.items()})
    count = len(next(iter(found.values())).data)
    spare = sum(column.spare for column in found.values())
    if 2 * spare > count * len(row) + _SMALL:
        return None
    layout = _layout(row)

    def fill(out: NDArray[np.uint8]) -> None:
        out[:] = layout.row
        for key, column in found.items():
            layout.slots[key].of(out)[:] = column.data

    return EncodedRows(len(row), fill)


@lru_cache(maxsize=8)
def _layout(row: bytes) -> Layout:
    found = layout_of(row)
    assert found is not None
    return found


def _of_elements(rows: Rows, key: str) -> _Column:
    dtype, memory = widened(rows.dtype, rows.memory, key)
    return _Column(packed_array(dtype, rows.shape, bytes(memory.shape[1])), memory)


def _of_values(values: list[Any]) -> _Column | None:
    kinds = set(map(type, values))
    if len(kinds) == 1:
        return _OF_TYPE[kinds.pop()](values)
    return _with_room(values) if len(kinds) == 2 and type(None) in kinds else None


def _of_texts(texts: list[str]) -> _Column | None:
    whole = "".join(texts)
    data = np.frombuffer(whole.encode() or b"\0", np.uint8)
    size = len(whole) // len(texts)
    if not whole.isascii() or set(map(len, texts)) != {size}:
        return _with_room(texts)
    return _Column("0" * size, data[: len(whole)].reshape(len(texts), size))


def _with_room(values: list[Any]) -> _Column | None:
    """Values of several lengths."""
    if int in map(type, values) and any(value is not None and not -_MOST <= value < _MOST for value in values):
        return None
    pieces = list(map(pack, values))
    sizes = list(map(len, pieces))
    room = -(-max(sizes) // _STEP) * _STEP
    lengths, padded = np.array(sizes, "<u4"), np.array(pieces, f"S{room}")
    data = np.hstack([_bytes_of(lengths), _bytes_of(padded)])
    return _Column(packed_room(b"", room), data, len(values) * room - sum(sizes))


def _of_nothing(values: list[None]) -> _Column:
    return _Column(None, np.empty((len(values), 0), np.uint8))


def _of_whole_numbers(numbers: list[int]) -> _Column | None:
    try:
        found = np.array(numbers, np.int64)
    except OverflowError:
        return None
    least, most = int(found.min()), int(found.max())
    size = next(size for size in (1, 2, 4, 8) if -(1 << (8 * size - 1)) <= least and most < 1 << (8 * size - 1))
    return _Column(-(1 << (8 * size - 1)), _bytes_of(found.astype(f">i{size}")))


def _of_floats(numbers: list[float]) -> _Column:
    return _Column(0.0, _bytes_of(np.array(numbers, ">f8")))


def _of_bools(values: list[bool]) -> _Column:
    false, true = pack_row({"": False})[-1], pack_row({"": True})[-1]
    return _Column(False, np.where(np.array(values), np.uint8(true), np.uint8(false)).reshape(-1, 1))


def _bytes_of(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    return numbers.view(np.uint8).reshape(len(numbers), -1)


_OF_TYPE: dict[type, Callable[[Any], _Column | None]] = {
    type(None): _of_nothing,
    str: _of_texts,
    int: _of_whole_numbers,
    float: _of_floats,
    bool: _of_bools,
}


def widened(dtype: str, memory: NDArray[np.uint8], key: str) -> tuple[str, NDArray[np.uint8]]:
    """Elements as a table holds them: half precision as float32, and what it has no dtype for refused.

    Args:
        dtype: The name of theirs.
        memory: The elements; along the last axis their bytes.
        key: The column, for messages.

    Raises:
        TypeError: There is no such column.
    """
    if dtype in DTYPES and sys.byteorder == "little":
        return dtype, memory
    if dtype == "float16":
        return "float32", memory.view(np.float16).astype("<f4").view(np.uint8)
    if dtype == "bfloat16":
        return "float32", (memory.view(np.uint16).astype("<u4") << np.uint32(16)).view(np.uint8)
    if dtype not in DTYPES:
        raise no_dtype(dtype, key)
    element = np.dtype(dtype)
    return dtype, memory.view(element).astype(element.newbyteorder("<")).view(np.uint8)


def no_dtype(name: str, key: str) -> TypeError:
    """What is said of a dtype that a table does not hold."""
    return TypeError(f"column {key!r} has dtype {name}, and a table holds {', '.join(DTYPES)}; convert it")
