"""Where each value lies in rows of a table that are laid out alike, so that many are written and read at once.

Rows are if they have the same columns, and each column the same form: one dtype and shape, texts of one length, or
whole numbers of one width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from lighter_async.table_row.kinds import list_of
from lighter_async.table_row.row import ARRAY, ROOM, array_head, of_extension

__all__ = ["Layout", "Slot", "layout_of"]

_TRUE, _FALSE, _NONE = 0xC3, 0xC2, 0xC0
_WHOLE: Final = {0xCC: ">u1", 0xCD: ">u2", 0xCE: ">u4", 0xCF: ">i8", 0xD0: ">i1", 0xD1: ">i2", 0xD2: ">i4", 0xD3: ">i8"}
_LARGE = 0xCF
_FLOAT = 0xCB
# Of those that say their length: in how many bytes.
_TEXTS: Final = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS: Final = {0xDC: 2, 0xDD: 4}
_EXTENSIONS: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_EXTENSIONS: Final = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_LENGTH = 4  # bytes of the length of a value that has room for a longer one
_ARRAY_OF = b"\xdd"  # followed by four bytes that say how many values
_decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(ext_hook=of_extension).decode
_decode_list: Callable[[bytes], list[Any]] = msgspec.msgpack.Decoder(list[Any], ext_hook=of_extension).decode


class Slot(NamedTuple):
    """Where the values of a column lie.

    Attributes:
        kind: The column's type, as `type_of` has it; empty where each value has its own.
        form: How they lie there: ``"array"``, ``"number"``, ``"large"`` (a whole number of 64 bits without a sign),
            ``"small"`` (a whole number in msgpack's first byte), ``"bool"``, ``"text"``, ``"list"``, ``"nothing"``, or
            ``"room"`` (a value with room for a longer one).
        begin: Where their bytes begin in a row.
        size: How many there are.
        dtype: Numpy's name of a number there.
        shape: Of an array.
    """

    kind: str
    form: str
    begin: int
    size: int
    dtype: str = ""
    shape: tuple[int, ...] = ()

    def of(self, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The bytes of some rows that lie there."""
        return rows[:, self.begin : self.begin + self.size]

    def fit(self, rows: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
        """Which rows have values of this form; None if all do, whose other bytes are as they should be."""
        first = self.of(rows)[:, :1].reshape(-1)
        found: NDArray[np.bool_] | None = None
        if self.form == "small":
            found = first.view(np.int8) >= -32
        elif self.form == "bool":
            found = (first | 1) == _TRUE
        elif self.form == "room":
            found = self._lengths(rows) <= self.size - _LENGTH
        elif self.form == "large":
            found = first < 0x80
        return found

    def values(self, rows: NDArray[np.uint8]) -> NDArray[Any] | list[Any]:
        """The values of some rows: numbers as an array, and texts, or None, as a list.

        Raises:
            UnicodeDecodeError, msgspec.DecodeError, ValueError: A value is not valid.
        """
        if self.form == "text":
            return _texts(self.of(rows))
        if self.form == "room":
            return self._each_value(rows)
        if self.form == "list":
            whole, size = self.of(rows).tobytes(), self.size
            return [_decode(whole[begin : begin + size]) for begin in range(0, len(whole), size)]
        if self.form == "nothing":
            return [None] * len(rows)
        data = np.ascontiguousarray(self.of(rows))
        if self.form == "bool":
            data = data & np.uint8(_TRUE ^ _FALSE)
        found: NDArray[Any] = data.view(self.dtype).reshape(len(rows), *self.shape)
        return found.astype(found.dtype.newbyteorder("=") if self.form == "array" else self.kind, copy=False)

    def _each_value(self, rows: NDArray[np.uint8]) -> list[Any]:
        """Those that have room for longer ones, by decoding them as one array of msgpack's."""
        data = self.of(rows)[:, _LENGTH:]
        values = data[np.arange(data.shape[1]) < self._lengths(rows)[:, None]]
        return _decode_list(_ARRAY_OF + len(rows).to_bytes(4, "big") + values.tobytes())

    def _lengths(self, rows: NDArray[np.uint8]) -> NDArray[Any]:
        found: NDArray[Any] = np.ascontiguousarray(self.of(rows)[:, :_LENGTH]).view("<u4")
        return found[:, 0]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the values of rows lie that are laid out alike.

    Attributes:
        row: One of them; zeros in the place of values.
        is_fixed: Ones where all of them have the same bits.
        slots: Of each column.
    """

    row: NDArray[np.uint8]
    is_fixed: NDArray[np.uint8]
    slots: dict[str, Slot]

    def fit(self, rows: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
        """Which of some rows are laid out like this; None if all are.

        Args:
            rows: As many bytes of each as `row` has.
        """
        others = rows ^ self.row
        others &= self.is_fixed
        found: NDArray[np.bool_] | None = np.logical_not(others.any(axis=1)) if others.any() else None
        for slot in self.slots.values():
            of_slot = slot.fit(rows)
            if of_slot is not None and not of_slot.all():
                found = of_slot if found is None else found & of_slot
        return found


def layout_of(row: bytes) -> Layout | None:
    """How a row is laid out; None if it is no row that `pack_row` gives."""
    try:
        slots, end = _slots_of(row)
    except (IndexError, ValueError, RecursionError):
        return None
    if slots is None or end != len(row):
        return None
    fixed = np.full(len(row), 0xFF, np.uint8)
    for slot in slots.values():
        fixed[slot.begin : slot.begin + slot.size] = 0
    return Layout(np.frombuffer(row, np.uint8) & fixed, fixed, slots)


def _slots_of(row: bytes) -> tuple[dict[str, Slot] | None, int]:
    """The places of the values of a row, and where it ends; None if they have no such place.

    Raises:
        IndexError, ValueError: It is no row.
    """
    first = row[0]
    if first >> 4 == 8:
        count, place = first & 15, 1
    elif first == 0xDE:
        count, place = int.from_bytes(row[1:3], "big"), 3
    else:
        return None, 0
    slots: dict[str, Slot] = {}
    for _ in range(count):
        key = _text_at(row, place)
        if key is None:
            return None, 0
        name = str(row[key.begin : key.begin + key.size], "utf-8")
        slot = _slot_at(row, key.begin + key.size)
        if slot is None or name in slots:
            return None, 0
        slots[name] = slot
        place = slot.begin + slot.size
    return slots, place


def _slot_at(row: bytes, place: int) -> Slot | None:
    """The value that begins somewhere in a row."""
    first = row[place]
    if first < 0x80 or first >= 0xE0:
        return Slot("int64", "small", place, 1, ">i1")
    if first in (_TRUE, _FALSE):
        return Slot("bool", "bool", place, 1, "?")
    if first == _NONE:
        return Slot("null", "nothing", place + 1, 0)
    if first == _FLOAT:
        return Slot("float64", "number", place + 1, 8, ">f8")
    if first in _WHOLE:
        dtype = _WHOLE[first]
        return Slot("int64", "large" if first == _LARGE else "number", place + 1, int(dtype[2]), dtype)
    return _text_at(row, place) or _extension_at(row, place) or _list_at(row, place)


def _list_at(row: bytes, place: int) -> Slot | None:
    first, end = row[place], place + 1
    if first >> 4 == 9:
        count = first & 15
    else:
        if (said := _LISTS.get(first)) is None:
            return None
        count, end = int.from_bytes(row[end : end + said], "big"), end + said
    for _ in range(count):
        slot = _slot_at(row, end)
        if slot is None:
            return None
        end = slot.begin + slot.size
    return Slot("", "list", place, end - place)


def _text_at(row: bytes, place: int) -> Slot | None:
    first = row[place]
    if first >> 5 == 5:
        return Slot("text", "text", place + 1, first & 31)
    if (said := _TEXTS.get(first)) is None:
        return None
    return Slot("text", "text", place + 1 + said, int.from_bytes(row[place + 1 : place + 1 + said], "big"))


def _extension_at(row: bytes, place: int) -> Slot | None:
    size, said = _FIXED_EXTENSIONS.get(row[place]), 0
    if size is None:
        if (found := _EXTENSIONS.get(row[place])) is None:
            return None
        said = found
        size = int.from_bytes(row[place + 1 : place + 1 + said], "big")
    code, begin = row[place + 1 + said], place + 2 + said
    if code == ROOM and size >= _LENGTH:
        return Slot("", "room", begin, size)
    if code != ARRAY:
        return None
    dtype, shape, head = array_head(row[begin : begin + size])
    kind = list_of(dtype, len(shape))
    little = np.dtype(dtype).newbyteorder("<").str
    return Slot(kind, "array", begin + head, size - head, little, shape)


def _texts(data: NDArray[np.uint8]) -> list[str]:
    """Texts that lie in equally long pieces of memory."""
    size = data.shape[1]
    if not size:
        return [""] * len(data)
    whole = data.tobytes()
    if whole.isascii():
        text = whole.decode()
        return [text[begin : begin + size] for begin in range(0, len(text), size)]
    return [str(whole[begin : begin + size], "utf-8") for begin in range(0, len(whole), size)]
