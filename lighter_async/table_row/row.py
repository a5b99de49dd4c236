"""One row of a table as bytes: msgpack (https://msgpack.org) of a dict from columns to values.

Numbers, texts and lists are msgpack's own. What comes from tensors and arrays keeps its dtype and shape: it is an
extension of type 1, with the number of the dtype, the number of dimensions, each dimension in four bytes, and the
elements in C order, all of it little-endian.

A text that is stored with longer ones may take as much room as these, so that all of the rows are laid out alike: it is
an extension of type 2, with the text's length in four bytes, little-endian, the text in UTF-8, and zeros.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ARRAY",
    "DTYPES",
    "TEXT",
    "array_head",
    "decode_row",
    "pack_row",
    "packed_array",
    "packed_text",
]

DTYPES: Final = (
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float32", "float64"),
)
"""The dtypes of arrays, by their numbers. Later versions only append."""

ARRAY: Final = 1
"""msgpack's number of the extension for what came from a tensor or an array."""

TEXT: Final = 2
"""msgpack's number of the extension for a text that has room for a longer one."""

_MOST_DIMENSIONS = 32
_ITEM_BYTES = {name: np.dtype(name).itemsize for name in DTYPES}
_NUMBERS = {name: number for number, name in enumerate(DTYPES)}

_Ext = msgspec.msgpack.Ext
_pack: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode


def pack_row(row: Mapping[str, Any]) -> bytes:
    """The bytes of a row of None, bool, int, float, str, lists of these, and what `packed_array` gives.

    Raises:
        OverflowError, TypeError: msgpack has no such value.
    """
    return _pack(row)


def packed_array(dtype: str, shape: Sequence[int], data: bytes | bytearray | memoryview) -> Any:
    """A value of a row that has a dtype and a shape.

    Args:
        dtype: One of `DTYPES`.
        shape: The array's.
        data: Its elements, in C order, little-endian.
    """
    return _Ext(ARRAY, struct.pack(f"<BB{len(shape)}I", _NUMBERS[dtype], len(shape), *shape) + data)


def packed_text(text: bytes, size: int) -> Any:
    """A text that takes as much room as one of `size` bytes.

    Args:
        text: In UTF-8.
        size: Of the longest text that it is stored with.
    """
    return _Ext(TEXT, len(text).to_bytes(4, "little") + text.ljust(size, b"\0"))


def decode_row(data: bytes | memoryview) -> dict[str, Any]:
    """The row of some bytes: numbers from tensors are numpy's scalars, and vectors arrays, of the dtype they had.

    Raises:
        msgspec.DecodeError, ValueError: They are no row.
    """
    return _decode(data)


def array_head(data: bytes | memoryview) -> tuple[str, tuple[int, ...], int]:
    """The dtype and the shape of the array in an extension, and where its elements begin there.

    Raises:
        ValueError: It is no array.
    """
    if len(data) < 2 or data[0] >= len(DTYPES) or data[1] > _MOST_DIMENSIONS or len(data) < 2 + 4 * data[1]:
        raise ValueError("the head of an array in a row is not valid")
    dtype, dimensions = DTYPES[data[0]], data[1]
    shape = struct.unpack_from(f"<{dimensions}I", data, 2)
    begin = 2 + 4 * dimensions
    if len(data) - begin != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise ValueError("an array in a row is not as long as its shape says")
    return dtype, shape, begin


def _extension(code: int, data: memoryview) -> Any:
    if code == ARRAY:
        dtype, shape, begin = array_head(data)
        array: NDArray[Any] = np.frombuffer(data, np.dtype(dtype).newbyteorder("<"), offset=begin).reshape(shape)
        array = array.astype(dtype)
        return array if shape else array[()]
    if code == TEXT and len(data) >= 4 + (size := int.from_bytes(data[:4], "little")):
        return str(data[4 : 4 + size], "utf-8")
    raise ValueError("an extension of msgpack that rows of tables do not have")


_decode: Callable[[Any], dict[str, Any]] = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=_extension).decode
