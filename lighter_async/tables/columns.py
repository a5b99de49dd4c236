"""Some rows of a table as columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lighter_async.table_row import DTYPES, common_type, decoded, stacked, type_of
from lighter_async.tables.reading import Some, Values

__all__ = ["Chunk", "Column", "column_of", "own_column"]

Parts: TypeAlias = "list[tuple[NDArray[np.int64], Values]]"


@dataclass(frozen=True, slots=True)
class Column:
    """The values of some rows that follow each other.

    Attributes:
        values: Numbers, or arrays of one shape that are all there, as an array. Else a list of texts, arrays, lists of
            these, and None where a row has none.
        is_there: Of numbers as an array: which rows have one; None: all of them.
    """

    values: Values
    is_there: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows that follow each other, as columns.

    Attributes:
        columns: The columns, by their names.
        count: How many rows.
    """

    columns: dict[str, Column]
    count: int


def own_column(some: Some, key: str) -> Column:
    """What tells rows apart, of those that could be read: ``"index"``, ``"loader"`` or ``"name"``."""
    numbers, rows = some.numbers
    if some.unread:
        kept = np.ones(len(some), np.bool_)
        kept[list(some.unread)] = False
        numbers, rows = numbers[kept], rows[kept]
    if key == "loader":
        loaders = np.array([block.head.loader for block in some.blocks], np.int64)
        return Column(loaders[numbers])
    parts = [(int(number), np.flatnonzero(numbers == number)) for number in np.unique(numbers)]
    if key == "name":
        names: list[Any] = [None] * len(rows)
        for number, places in parts:
            _put(names, places, some.blocks[number].names_at(rows[places]))
        return Column(names)
    indices, is_there = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_)
    for number, places in parts:
        block = some.blocks[number]
        if block.head.has_index:
            indices[places] = block.indices.view()[rows[places]]
            is_there[places] = True
    return Column(indices, None if is_there.all() else is_there)


def column_of(some: Some, key: str, kind: str) -> Column:
    """A column that was stored, of the rows that could be read.

    Args:
        some: The rows.
        key: The column.
        kind: Its type.

    Raises:
        TypeError: A row has a value of another type there.
    """
    column = _column(some, key, kind)
    if not some.unread:
        return column
    kept = np.ones(len(some), np.bool_)
    kept[list(some.unread)] = False
    if isinstance(column.values, list):
        return Column([one for one, is_kept in zip(column.values, kept.tolist(), strict=True) if is_kept])
    return Column(column.values[kept], None if column.is_there is None else column.is_there[kept])


def _column(some: Some, key: str, kind: str) -> Column:
    """As `column_of`, of all rows; of those that cannot be read there is nothing."""
    parts = list(_parts(some, key, kind))
    count = sum(len(places) for places, _ in parts)
    if len(parts) == 1 and count == len(some) and (np.diff(parts[0][0]) > 0).all():
        return Column(parts[0][1])
    shapes = {part.shape[1:] if isinstance(part, np.ndarray) else None for _, part in parts}
    if kind in DTYPES or (count == len(some) and len(shapes) == 1 and None not in shapes):
        return _array(some, key, kind, parts, shapes)
    values: list[Any] = [None] * len(some)
    for places, part in parts:
        _put(values, places, part)
    return Column(values)


def _array(some: Some, key: str, kind: str, parts: Parts, shapes: set[Any]) -> Column:
    """A column of numbers, or of arrays of one shape that are all there."""
    shape = () if kind in DTYPES else shapes.pop()
    values = np.zeros((len(some), *shape), kind.replace("list<", "").rstrip(">"))
    is_there = np.zeros(len(some), np.bool_)
    for places, part in parts:
        values[places] = part
        is_there[places] = True
    return Column(values, None if is_there.all() else is_there)


def _parts(some: Some, key: str, kind: str) -> Iterator[tuple[NDArray[np.int64], Values]]:
    """The values of rows that have some, and their places.

    Raises:
        TypeError: As `column_of`.
    """
    for alike in some.alike:
        there = alike.kinds.get(key, "null")
        if not there:
            yield from _of_values(alike.places, list(alike.values[key]), key, kind)
            continue
        _check(key, kind, there)
        if there != "null":
            yield alike.places, alike.values[key]
    found = [(place, row[key]) for place, row in some.others.items() if row.get(key) is not None]
    if not found:
        return
    places, values = np.array([place for place, _ in found]), [value for _, value in found]
    array = stacked(values)
    if array is None:
        yield from _of_values(places, list(map(decoded, values)), key, kind)
    else:
        _check(key, kind, type_of(values[0]))
        yield places, array


def _of_values(
    places: NDArray[np.int64], values: list[Any], key: str, kind: str
) -> Iterator[tuple[NDArray[np.int64], Values]]:
    """As `_parts`, of single values, some of which may be None. What is in lists is left to whoever writes them."""
    is_there = np.array([value is not None for value in values], np.bool_)
    if not is_there.all():
        places, values = places[is_there], [value for value in values if value is not None]
    is_list = kind.startswith("list<")
    for one in {type(value): value for value in values}.values():
        if not (is_list and isinstance(one, (list, np.ndarray))):
            _check(key, kind, type_of(one))
    if values:
        yield places, np.array(values, kind) if kind in DTYPES else values


def _check(key: str, kind: str, there: str) -> None:
    """
    Raises:
        TypeError: As `column_of`.
    """
    if common_type(kind, there) != kind:
        raise TypeError(f"column {key!r} is {kind}, and a sample has {there} there")


def _put(values: list[Any], places: NDArray[np.int64], some: Values) -> None:
    """Put some values at some places of a list."""
    for place, value in zip(places.tolist(), some, strict=True):
        values[place] = value
