"""One row of a table as bytes: its values (`row.py`), their types (`kinds.py`), and rows that are laid out alike."""

from lighter_async.table_row.kinds import common_type, is_type, type_of
from lighter_async.table_row.layout import Layout, Slot, layout_of
from lighter_async.table_row.row import (
    DTYPES,
    decode_row,
    decoded,
    pack,
    pack_row,
    packed_array,
    packed_room,
    stacked,
    unpack_row,
)

__all__ = [
    "DTYPES",
    "Layout",
    "Slot",
    "common_type",
    "decode_row",
    "decoded",
    "is_type",
    "layout_of",
    "pack",
    "pack_row",
    "packed_array",
    "packed_room",
    "stacked",
    "type_of",
    "unpack_row",
]
