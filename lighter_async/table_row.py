"""One row of a table as bytes: msgpack (https://msgpack.org) of a dict from columns to values.

Numbers, texts and lists are msgpack's own. What comes from tensors and arrays keeps its dtype and shape: it is an
extension of type 1, with the number of the dtype, the number of dimensions, each dimension in four bytes, and the
elements in C order, all of it little-endian.

A row that is stored with longer ones may be as long as these: a byte that msgpack does not use, the row's length in
four bytes, the row, and zeros.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DTYPES",
    "Cell",
    "Ext",
    "cell_of",
    "common_type",
    "decode_row",
    "is_type",
    "pack_row",
    "packed_array",
    "padded_row",
    "stacked",
    "template_of",
    "type_of",
    "unpack_row",
]

DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
"""The dtypes of cells, by their numbers. Later versions only append."""

_ARRAY = 1  # msgpack's number of the extension
_MOST_DIMENSIONS = 32
_PADDED = b"\xc1"  # which no row begins with otherwise
_ITEM_BYTES = {name: np.dtype(name).itemsize for name in DTYPES}
_NUMBERS = {name: number for number, name in enumerate(DTYPES)}

Ext = msgspec.msgpack.Ext
_pack: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_unpack: Callable[[Any], dict[str, Any]] = msgspec.msgpack.Decoder(dict[str, Any]).decode


class Cell(NamedTuple):
    """A value that came from a tensor or an array.

    Attributes:
        dtype: One of `DTYPES`.
        shape: Of the array; of one number ``()``.
        data: The elements, in C order, little-endian.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    def array(self) -> NDArray[Any]:
        """The elements as an array of this machine's."""
        found = np.frombuffer(self.data, np.dtype(self.dtype).newbyteorder("<")).reshape(self.shape)
        return found.astype(self.dtype, copy=False)


def pack_row(row: Mapping[str, Any]) -> bytes:
    """The bytes of a row of None, bool, int, float, str, lists of these, and what `packed_array` gives.

    Raises:
        OverflowError, TypeError: msgpack has no such value.
    """
    return _pack(row)


def padded_row(row: bytes, size: int) -> bytes:
    """A row with as many bytes as the longest one that it is stored with.

    Args:
        row: What `pack_row` gives.
        size: The bytes of that longest one.
    """
    return row.join((_PADDED + len(row).to_bytes(4, "little"), bytes(size - len(row))))


def unpack_row(data: bytes | memoryview) -> dict[str, Any]:
    """The row of some bytes, in which what `packed_array` gave is left packed: `cell_of` reads it.

    Raises:
        msgspec.DecodeError: They are no row.
    """
    if data[:1] == _PADDED:
        data = data[5 : 5 + int.from_bytes(data[1:5], "little")]
    return _unpack(data)


def decode_row(data: bytes | memoryview) -> dict[str, Any]:
    """The row of some bytes: numbers from tensors are numpy's scalars, and vectors arrays, of the dtype they had.

    Raises:
        msgspec.DecodeError, ValueError: They are no row.
    """
    return {key: _decoded(value) for key, value in unpack_row(data).items()}


def _decoded(value: Any) -> Any:
    if type(value) is Ext:
        array = cell_of(value).array()
        return array.copy() if array.ndim else array[()]
    return [_decoded(one) for one in value] if type(value) is list else value


def packed_array(dtype: str, shape: Sequence[int], data: bytes | bytearray | memoryview) -> Any:
    """A value of a row that has a dtype and a shape.

    Args:
        dtype: One of `DTYPES`.
        shape: The array's.
        data: Its elements, in C order, little-endian.
    """
    return Ext(_ARRAY, _head(dtype, shape) + data)


def cell_of(value: Any) -> Cell:
    """What `packed_array` has packed.

    Raises:
        ValueError: It has not.
    """
    if type(value) is not Ext or value.code != _ARRAY:
        raise ValueError("an extension of msgpack that rows of tables do not have")
    data = memoryview(value.data)
    if len(data) < 2 or data[0] >= len(DTYPES) or data[1] > _MOST_DIMENSIONS or len(data) < 2 + 4 * data[1]:
        raise ValueError("the head of an array in a row is not valid")
    dtype, dimensions = DTYPES[data[0]], data[1]
    shape = struct.unpack_from(f"<{dimensions}I", data, 2)
    elements = data[2 + 4 * dimensions :]
    if len(elements) != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise ValueError("an array in a row is not as long as its shape says")
    return Cell(dtype, shape, elements)


def stacked(values: Sequence[Any]) -> NDArray[Any] | None:
    """The values of a column as one array, if all came from tensors or arrays of one dtype and shape; else None.

    Raises:
        ValueError: As `cell_of`.
    """
    if not values or type(values[0]) is not Ext:
        return None
    first = cell_of(values[0])
    pieces: list[Any] = [value.data for value in values if type(value) is Ext and value.code == _ARRAY]
    if len(pieces) < len(values):
        return None
    size, head = len(pieces[0]), pieces[0][: 2 + 4 * len(first.shape)]
    if any(len(piece) != size or piece[: len(head)] != head for piece in pieces):
        return None
    rows = np.frombuffer(b"".join(pieces), np.uint8).reshape(len(pieces), size)[:, len(head) :]
    return first._replace(shape=(len(pieces), *first.shape), data=rows.tobytes()).array()


def template_of(columns: Mapping[str, tuple[str, Sequence[int], int]]) -> tuple[bytes, list[int]]:
    """A row whose arrays have no elements yet, and where those of each begin in it.

    Args:
        columns: The dtype, the shape and the bytes of each column's array.
    """
    packed = {key: Ext(_ARRAY, _head(dtype, shape) + bytes(size)) for key, (dtype, shape, size) in columns.items()}
    row = _pack(packed)
    pieces = [(len(_pack(key)), len(_pack(value))) for key, value in packed.items()]
    place = len(row) - sum(key + value for key, value in pieces)
    begins = []
    for (key, value), (_, _, size) in zip(pieces, columns.values(), strict=True):
        place += key + value
        begins.append(place - size)
    return row, begins


def type_of(value: Any) -> str:
    """The type of a value of an unpacked row: ``"int64"``, ``"list<float32>"``, ``"text"``, ``"null"``, and so on.

    Raises:
        TypeError: It is a list of values that do not go together, or no value that a table holds.
        ValueError: As `cell_of`.
    """
    kind = type(value)
    if kind in _TYPES:
        return _TYPES[kind]
    if kind is Ext:
        cell = cell_of(value)
        return "list<" * len(cell.shape) + cell.dtype + ">" * len(cell.shape)
    if kind is list:
        found = "null"
        for one in value:
            of_one = type_of(one)
            together = common_type(found, of_one)
            if together is None:
                raise TypeError(f"a list whose items are {found} and {of_one}")
            found = together
        return f"list<{found}>"
    raise TypeError(f"a value of type {kind.__name__}")


def common_type(one: str, other: str) -> str | None:
    """The type of a column that has values of two types; None if there is none."""
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    if one.startswith("list<") and other.startswith("list<"):
        inner = common_type(one[5:-1], other[5:-1])
        return None if inner is None else f"list<{inner}>"
    return None


def is_type(text: str) -> bool:
    """Whether a text is what `type_of` says of some value."""
    depth = text.count("list<")
    inner = text.removeprefix("list<" * depth).removesuffix(">" * depth)
    return text == "list<" * depth + inner + ">" * depth and inner in (*_TYPES.values(), *DTYPES)


_TYPES = {type(None): "null", bool: "bool", int: "int64", float: "float64", str: "text"}


def _head(dtype: str, shape: Sequence[int]) -> bytes:
    return struct.pack(f"<BB{len(shape)}I", _NUMBERS[dtype], len(shape), *shape)
