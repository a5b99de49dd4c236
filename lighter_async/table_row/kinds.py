"""The types of a table's columns, as texts: ``"int64"``, ``"list<float32>"``, ``"text"``, ``"null"``, and so on."""

from __future__ import annotations

from typing import Any

import numpy as np

from lighter_async.table_row.row import DTYPES, Ext, array_head

__all__ = ["common_type", "is_type", "list_of", "type_of"]

_TYPES = {type(None): "null", bool: "bool", int: "int64", float: "float64", str: "text"}


def type_of(value: Any) -> str:
    """The type of a value of a row, as `unpack_row` or `decode_row` gives it.

    Raises:
        TypeError: It is a list of values that do not go together, or no value that a table holds.
        ValueError: An extension is not valid.
    """
    kind = type(value)
    if kind in _TYPES:
        return _TYPES[kind]
    if kind is Ext:
        dtype, shape, _ = array_head(value.data)
        return list_of(dtype, len(shape))
    if isinstance(value, (np.ndarray, np.generic)):
        return list_of(value.dtype.name, value.ndim)
    if kind is list:
        found = "null"
        for of_one in dict.fromkeys(map(type_of, value)):
            together = common_type(found, of_one)
            if together is None:
                raise TypeError(f"a list whose items are {found} and {of_one}")
            found = together
        return f"list<{found}>"
    raise TypeError(f"a value of type {kind.__name__}")


def list_of(kind: str, dimensions: int) -> str:
    """The type of an array with elements of some type."""
    return "list<" * dimensions + kind + ">" * dimensions


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
    return text == list_of(inner, depth) and inner in (*_TYPES.values(), *DTYPES)
