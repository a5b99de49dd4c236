"""Columns of a table as Arrow has them, for Parquet and pandas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighter_async.tables.columns import Chunk, Column

__all__ = ["arrow_table", "schema_of"]

_NAMES = {"float32": "float32", "float64": "float64", "bool": "bool_", "text": "string", "null": "null"}
_MOST = 1 << 31  # elements of a list array


def schema_of(types: Mapping[str, str]) -> Any:
    """The schema of a table, from the type of each column: lists of any length, and texts of any length."""
    import pyarrow

    return pyarrow.schema([(key, _type_of(kind)) for key, kind in types.items()])


def _type_of(kind: str) -> Any:
    import pyarrow

    if kind.startswith("list<"):
        return pyarrow.list_(_type_of(kind[5:-1]))
    return getattr(pyarrow, _NAMES.get(kind, kind))()


def arrow_table(chunk: Chunk, schema: Any) -> Any:
    """Some rows as a `pyarrow.Table`."""
    import pyarrow

    arrays = [_array(chunk.columns[field.name], field.type) for field in schema]
    return pyarrow.Table.from_arrays(arrays, schema=schema)


def _array(column: Column, kind: Any) -> Any:
    import pyarrow

    values = column.values
    if not isinstance(values, list):
        if values.ndim == 1:
            return pyarrow.array(values, kind, mask=None if column.is_there is None else ~column.is_there)
        if math.prod(max(length, 1) for length in values.shape) < _MOST:
            return _lists(values, kind)
        values = list(values)
    return pyarrow.array(list(map(_plain, values)), kind)


def _lists(values: NDArray[Any], kind: Any) -> Any:
    """Arrays of one shape, as lists of lists."""
    import pyarrow

    if values.ndim == 1:
        return pyarrow.array(values, kind)
    count, length = values.shape[:2]
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(length)
    inner = _lists(values.reshape(count * length, *values.shape[2:]), kind.value_type)
    return pyarrow.ListArray.from_arrays(pyarrow.array(offsets), inner)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return list(map(_plain, value)) if type(value) is list else value
