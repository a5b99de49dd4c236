"""Columns of tables as text: as JSON has them (RFC 8259), and as cells of CSV (RFC 4180)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lighter_async.tables.columns import Column
from lighter_async.tables.numbers import NOT_FINITE, texts_of

__all__ = ["csv_cells", "json_texts", "quoted"]

_TO_QUOTE = re.compile(r'[",\r\n]|\A\s|\s\Z')
_BETWEEN, _CUT = '","', '"\n"'
_encode = msgspec.json.Encoder().encode


def json_texts(column: Column) -> list[str]:
    """The values of a column as JSON. It has no NaN and no infinity, so these become ``null``."""
    values = column.values
    if isinstance(values, list):
        return _with_nothing(values, _json_of_texts, "null") or list(map(_json, values))
    if values.ndim > 1:
        return list(map(_json, values))
    texts = texts_of(values)
    if values.dtype.kind == "f":
        for place in np.flatnonzero(~np.isfinite(values)).tolist():
            texts[place] = "null"
    return _blanked(texts, column.is_there, "null")


def csv_cells(column: Column) -> list[str]:
    """The values of a column as cells: nothing for a value that is missing, and JSON for lists."""
    values = column.values
    if isinstance(values, list):
        return _with_nothing(values, _quoted_texts, "") or list(map(_csv_cell, values))
    if values.ndim > 1:
        return list(map(_csv_cell, values))
    return _blanked(texts_of(values), column.is_there, "")


def _blanked(texts: list[str], is_there: NDArray[np.bool_] | None, nothing: str) -> list[str]:
    for place in () if is_there is None else np.flatnonzero(~is_there).tolist():
        texts[place] = nothing
    return texts


def _with_nothing(values: Sequence[Any], made: Callable[[list[str]], list[str]], nothing: str) -> list[str] | None:
    """What is made of the texts among some values, and something else where there is none; None of other values."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return made(list(values))
    if kinds <= {str, type(None)}:
        texts = iter(made([value for value in values if value is not None]))
        return [nothing if value is None else next(texts) for value in values]
    return None


def _json_of_texts(texts: list[str]) -> list[str]:
    whole = str(_encode(texts), "utf-8")[2:-2]
    if not texts or '\\"' in whole:
        return list(map(_json, texts))
    # From inside the first text on, and without quotation marks in texts, these stand between two texts alone. JSON has
    # no line breaks in texts.
    return f'"{whole.replace(_BETWEEN, _CUT)}"'.split("\n")


def _quoted_texts(texts: list[str]) -> list[str]:
    whole = "\0".join(texts)
    if any(mark in whole for mark in ',"\r\n'):
        return list(map(quoted, texts))
    # Stripped, a text that begins and ends with none is the same object.
    if "" in texts or list(map(str.strip, texts)) != texts:
        return list(map(quoted, texts))
    return texts


def _csv_cell(value: Any) -> str:
    """A value as a cell. An empty text is quoted, to tell it from none."""
    if value is None:
        return ""
    return quoted(value if type(value) is str else _json(value))


def quoted(text: str) -> str:
    """A text as a cell."""
    if text and not _TO_QUOTE.search(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def _json(value: Any) -> str:
    if type(value) is list:
        try:
            return str(_encode(value), "utf-8")
        except TypeError:  # of what comes from tensors
            return "[" + ",".join(map(_json, value)) + "]"
    if isinstance(value, np.ndarray):
        return _nested(value)
    if isinstance(value, np.generic):
        return _nested(np.asarray(value)[None])[1:-1]
    return str(_encode(value), "utf-8")


def _nested(array: NDArray[Any]) -> str:
    if array.ndim > 1:
        return "[" + ",".join(map(_nested, array)) + "]"
    return "[" + ",".join("null" if one in NOT_FINITE else one for one in texts_of(array)) + "]"
