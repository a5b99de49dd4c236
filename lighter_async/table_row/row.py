"""One row of a table as bytes: msgpack (https://msgpack.org) of a dict from columns to values.

Numbers, texts and lists are msgpack's own. What comes from tensors and arrays keeps its dtype and shape: it is an
extension of type 1, with the number of the dtype, the number of dimensions, each dimension in four bytes, and the
elements in C order, all of it little-endian.

A value that is stored with longer ones may take as much room as these, so that all of the rows are laid out alike: it
is an extension of type 2, with the value's length in four bytes, little-endian, the value as msgpack, and zeros.
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
    "ROOM",
    "Ext",
    "array_head",
    "decode_row",
    "decoded",
    "of_extension",
    "pack",
    "pack_row",
    "packed_array",
    "packed_room",
    "stacked",
    "unpack_row",
]

DTYPES: Final = (
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float32", "float64"),
)
"""The dtypes of arrays, by their numbers. Later versions only append."""

ARRAY: Final = 1
"""msgpack's number of the extension for what came from a tensor or an array."""

ROOM: Final = 2
"""msgpack's number of the extension for a value that has room for a longer one."""

_MOST_DIMENSIONS = 32
_ITEM_BYTES = {name: np.dtype(name).itemsize for name in DTYPES}
_NUMBERS = {name: number for number, name in enumerate(DTYPES)}

Ext = msgspec.msgpack.Ext
"""An extension of msgpack: a `code` and `data`."""

pack: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
"""The bytes of one value that is none of a tensor."""

_unpack: Callable[[Any], dict[str, Any]] = msgspec.msgpack.Decoder(dict[str, Any]).decode


def pack_row(row: Mapping[str, Any]) -> bytes:
    """The bytes of a row of None, bool, int, float, str, lists of these, and what `packed_array` gives.

    Raises:
        OverflowError, TypeError: msgpack has no such value.
    """
    return pack(row)


def packed_array(dtype: str, shape: Sequence[int], data: bytes | bytearray | memoryview) -> Any:
    """A value of a row that has a dtype and a shape.

    Args:
        dtype: One of `DTYPES`.
        shape: The array's.
        data: Its elements, in C order, little-endian.
    """
    return Ext(ARRAY, struct.pack(f"<BB{len(shape)}I", _NUMBERS[dtype], len(shape), *shape) + data)


def packed_room(value: bytes, size: int) -> Any:
    """A value that takes as much room as a longer one.

    Args:
        value: What `pack` gives.
        size: The bytes of the longer one.
    """
    return Ext(ROOM, len(value).to_bytes(4, "little") + value.ljust(size, b"\0"))


def unpack_row(data: bytes | memoryview) -> dict[str, Any]:
    """The row of some bytes, in which what `packed_array` gave is left as it is: `decoded` reads it.

    Raises:
        msgspec.DecodeError, ValueError: They are no row.
    """
    row = _unpack(data)
    for key, value in row.items():
        if type(value) is Ext and value.code != ARRAY:
            row[key] = decoded(value)
    return row


def decoded(value: Any) -> Any:
    """A value of a row that `unpack_row` gives, as `decode_row` gives it.

    Raises:
        msgspec.DecodeError, ValueError: An extension is not valid.
    """
    if type(value) is Ext:
        return of_extension(value.code, memoryview(value.data))
    return list(map(decoded, value)) if type(value) is list else value


def of_extension(code: int, data: memoryview) -> Any:
    """The value of an extension.

    Raises:
        msgspec.DecodeError, ValueError: It is not valid.
    """
    if code == ARRAY:
        dtype, shape, begin = array_head(data)
        array = _elements(data, dtype, begin).reshape(shape)
        return array.copy() if shape else array[()]
    size = int.from_bytes(data[:4], "little")
    if code == ROOM and len(data) >= 4 + size:
        return msgspec.msgpack.decode(data[4 : 4 + size], ext_hook=of_extension)
    raise ValueError("an extension of msgpack that rows of tables do not have")


def decode_row(data: bytes | memoryview) -> dict[str, Any]:
    """The row of some bytes: numbers from tensors are numpy's scalars, and vectors arrays, of the dtype they had.

    Raises:
        msgspec.DecodeError, ValueError: They are no row.
    """
    return _decode(data)


def stacked(values: Sequence[Any]) -> NDArray[Any] | None:
    """Values of a column as one array, if all came from tensors or arrays of one dtype and shape; else None.

    Raises:
        ValueError: An array is not valid.
    """
    if not all(type(value) is Ext and value.code == ARRAY for value in values):
        return None
    first = values[0].data
    dtype, shape, begin = array_head(first)
    if any(len(value.data) != len(first) or value.data[:begin] != first[:begin] for value in values):
        return None
    found = _elements(b"".join([value.data[begin:] for value in values]), dtype, 0)
    return found.reshape(len(values), *shape)


def _elements(data: bytes | memoryview, dtype: str, begin: int) -> NDArray[Any]:
    found = np.frombuffer(data, np.dtype(dtype).newbyteorder("<"), offset=begin)
    return found.astype(dtype, copy=False)


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


_decode: Callable[[Any], dict[str, Any]] = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=of_extension).decode
