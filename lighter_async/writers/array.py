"""Tensors and arrays as numpy has them: files that `numpy.load` reads, and plain elements as rows of one array."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.lib import format as numpy_format
from numpy.typing import NDArray

from lighter_async.npy import as_array, header, numpy_dtype, read
from lighter_async.plain_memory import Block, EncodedRows, Rows
from lighter_async.writers.base import Encoder
from lighter_async.writers.dense import array_of, without_class

__all__ = ["decode_npy", "decode_row", "encode_npy", "encode_row", "write_npy", "write_row"]


def encode_npy(value: Any) -> list[memoryview]:
    """What `numpy.save` writes for a dense tensor or an array, in C order.

    Raises:
        TypeError: It is neither, or numpy has no such dtype.
    """
    array = _array_of(value)
    if array.dtype.kind == "V":  # structured
        buffer = io.BytesIO()
        numpy_format.write_array(buffer, array, allow_pickle=False)
        return [buffer.getbuffer()]
    return [memoryview(header(array.dtype, array.shape)), _bytes_of(array)]


def _npy_of_block(block: Block) -> list[memoryview]:
    return [memoryview(header(numpy_dtype(block.dtype), block.shape)), block.memory.data]


def _npy_of_rows(rows: Rows) -> EncodedRows | None:
    if not rows.is_tensor and rows.dtype.startswith("["):
        return None  # a structured one
    start = np.frombuffer(header(numpy_dtype(rows.dtype), rows.shape), np.uint8)

    def fill(out: NDArray[np.uint8]) -> None:
        out[:, : start.size] = start
        out[:, start.size :] = rows.memory

    return EncodedRows(start.size + rows.memory.shape[1], fill)


def decode_npy(data: bytes | memoryview) -> NDArray[Any]:
    """The array of a file that `encode_npy`, or `numpy.save`, has written.

    Raises:
        ValueError: It is none, or holds objects, which are not unpickled.
    """
    return read(data)


def encode_row(value: Any) -> memoryview:
    """The elements of a dense tensor or an array, in C order, and nothing else.

    Raises:
        TypeError: It is neither, or numpy has no such dtype.
    """
    array = _array_of(value)
    numpy_dtype(str(array.dtype))
    return _bytes_of(array)


def _row_of_block(block: Block) -> memoryview:
    numpy_dtype(block.dtype)
    return block.memory.data


def _rows_of_rows(rows: Rows) -> EncodedRows:
    numpy_dtype(rows.dtype)

    def fill(out: NDArray[np.uint8]) -> None:
        out[:] = rows.memory

    return EncodedRows(rows.memory.shape[1], fill, rows.memory)


def decode_row(
    data: bytes | memoryview, *, dtype: str | None = None, shape: tuple[int, ...] | None = None
) -> NDArray[Any]:
    """The array of the elements that `encode_row` has written.

    Args:
        data: The elements.
        dtype: Their dtype's name.
        shape: The array's shape.

    Raises:
        TypeError: The dtype or the shape is not known.
        ValueError: There are more or fewer elements.
    """
    if dtype is None or shape is None:
        raise TypeError("the dtype and the shape of these elements are not recorded; read_bytes gives them as they are")
    return as_array(data, numpy_dtype(dtype), shape)


def _array_of(value: Any) -> NDArray[Any]:
    return array_of(value, "a numpy file")


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")


write_npy = Encoder(
    encode_npy,
    suffix=".npy",
    name="npy",
    encode_block=_npy_of_block,
    encode_rows=_npy_of_rows,
    prepare=without_class,
    decode=decode_npy,
)
"""``write_npy(path, value, *, suffix=".npy")``: write what `numpy.load` reads back."""

write_row = Encoder(
    encode_row,
    suffix="",
    name="row",
    encode_block=_row_of_block,
    encode_rows=_rows_of_rows,
    prepare=without_class,
    decode=decode_row,
)
"""The elements alone, as rows of an `ArrayTarget`; their dtype and shape are recorded."""
