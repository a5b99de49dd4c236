"""Columns of a table as Arrow has them, for Parquet and pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lighter_async.table_row import Ext, cell_of, stacked
from lighter_async.tables.content import Chunk

__all__ = ["arrow_table", "schema_of"]

_NAMES = {"float32": "float32", "float64": "float64", "bool": "bool_", "text": "string", "null": "null"}


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


def _array(values: Sequence[Any], kind: Any) -> Any:
    import pyarrow

    found = stacked(values)
    if found is not None and found.ndim == 1:
        return pyarrow.array(found, kind)
    if found is not None and found.ndim == 2:
        count, length = found.shape
        offsets = np.arange(count + 1, dtype=np.int64) * length
        if offsets[-1] < 1 << 31:
            flat = pyarrow.array(found.reshape(-1), kind.value_type)
            return pyarrow.ListArray.from_arrays(pyarrow.array(offsets, pyarrow.int32()), flat)
    return pyarrow.array([_plain(value) for value in values], kind)


def _plain(value: Any) -> Any:
    if type(value) is Ext:
        return cell_of(value).array().tolist()
    return [_plain(one) for one in value] if type(value) is list else value
