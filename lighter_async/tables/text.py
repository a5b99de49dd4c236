"""Values of tables as text: as JSON has them (RFC 8259), and as cells of CSV (RFC 4180)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lighter_async.table_row import Ext, cell_of, stacked

__all__ = ["csv_cells", "json_texts", "quoted"]

_NOT_FINITE = frozenset({"nan", "inf", "-inf"})
_TO_QUOTE = re.compile(r'[",\r\n]|\A\s|\s\Z')
_encode = msgspec.json.Encoder().encode


def json_texts(values: Sequence[Any]) -> list[str]:
    """The values of a column as JSON. It has no NaN and no infinity, so these become ``null``."""
    numbers = _numbers_in(values)
    if numbers is None:
        return [_json(value) for value in values]
    texts = _texts_of(numbers)
    return texts if numbers.dtype.kind != "f" else ["null" if one in _NOT_FINITE else one for one in texts]


def csv_cells(values: Sequence[Any]) -> list[str]:
    """The values of a column as cells: nothing for a value that is missing, and JSON for lists."""
    numbers = _numbers_in(values)
    return [_csv_cell(value) for value in values] if numbers is None else _texts_of(numbers)


def _csv_cell(value: Any) -> str:
    """A value as a cell. An empty text is quoted, to tell it from none."""
    if value is None:
        return ""
    kind = type(value)
    if kind is float:
        return repr(value)
    if kind is str:
        return quoted(value)
    if kind is Ext and not (cell := cell_of(value)).shape:
        return _texts_of(cell.array().reshape(1))[0]
    return quoted(_json(value))


def quoted(text: str) -> str:
    """A text as a cell."""
    if text and not _TO_QUOTE.search(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def _json(value: Any) -> str:
    kind = type(value)
    if kind is list:
        return "[" + ",".join(map(_json, value)) + "]"
    if kind is Ext:
        array = cell_of(value).array()
        return _nested(array) if array.ndim else json_texts([value])[0]
    return str(_encode(value), "utf-8")


def _nested(array: NDArray[Any]) -> str:
    if array.ndim == 1:
        texts = _texts_of(array)
        return "[" + ",".join("null" if one in _NOT_FINITE else one for one in texts) + "]"
    return "[" + ",".join(map(_nested, array)) + "]"


def _numbers_in(values: Sequence[Any]) -> NDArray[Any] | None:
    """Numbers from tensors as one array; None if they are none, or not all of one dtype."""
    found = stacked(values)
    return found if found is not None and found.ndim == 1 else None


def _texts_of(numbers: NDArray[Any]) -> list[str]:
    """The shortest text of each number that its dtype reads back."""
    if numbers.dtype.kind == "b":
        return ["true" if one else "false" for one in numbers.tolist()]
    texts: list[str] = numbers.astype(np.str_).tolist()
    return texts
