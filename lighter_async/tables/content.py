"""The rows of a table in the data set's order, a chunk at a time, so that a table need not fit into memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from lighter_async.errors import ReadError
from lighter_async.manifest import Record, checksum
from lighter_async.manifest.entry import place_of
from lighter_async.manifest.records import Records
from lighter_async.store import Store
from lighter_async.table_row import common_type, type_of, unpack_row

__all__ = ["Chunk", "Content", "content_of", "types_in"]

_ROWS = 1 << 15  # of a chunk
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_BY_INDEX = 1  # `Head.numbered` of samples whose names are their indices


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows that follow each other, as columns.

    Attributes:
        columns: The values of each column, as `unpack_row` gives them; None where a row has none.
        count: How many rows.
    """

    columns: dict[str, list[Any]]
    count: int


@dataclass(slots=True)
class Content:
    """What a table holds.

    Attributes:
        types: The type of each column, in their order: first what tells samples apart, then what was stored of them.
        records: Of the samples, in the data set's order.
        unread: Samples whose rows cannot be read, and that are left out, as far as `chunks` has come; and why.
    """

    types: dict[str, str]
    records: Records
    _store: Store
    _own: dict[str, Callable[[Record], Any]]
    unread: list[tuple[str, str]] = field(default_factory=list)

    def chunks(self) -> Iterator[Chunk]:
        """The rows, in the data set's order.

        Raises:
            TypeError: A value is not of its column's type.
        """
        records = iter(self.records)
        self.unread = []
        stored = [key for key in self.types if key not in self._own]
        while some := list(islice(records, _ROWS)):
            columns: dict[str, list[Any]] = {key: [] for key in self.types}
            count = 0
            for record in some:
                try:
                    row = _row_of(record, self._store)
                except (ReadError, ValueError) as error:
                    self.unread.append((record.name, str(error)))
                    continue
                count += 1
                for key, read in self._own.items():
                    columns[key].append(read(record))
                for key in stored:
                    columns[key].append(row.get(key))
                if any(key not in columns for key in row):
                    raise TypeError(f"sample {record.name!r:.200} has columns that the table has not")
            if count:
                yield Chunk(columns, count)


def content_of(records: Records, store: Store, types: Mapping[str, str] | None = None) -> Content:
    """The table of some records.

    There is a column ``index`` if the samples' indices in the data set are known, ``loader`` if there are several, and
    ``name`` if samples have names of their own, unless a column of theirs is called so.

    Args:
        records: Of one series, in the data set's order.
        store: What reads the rows.
        types: The type of each column. None looks through all rows.

    Raises:
        TypeError: Two rows have values of different types in one column.
    """
    found = dict(types_in(records, store) if types is None else types)
    heads = [block.head for block in records.blocks]
    own: dict[str, Callable[[Record], Any]] = {}
    leading: dict[str, str] = {}
    if any(head.has_index for head in heads):
        own["index"], leading["index"] = _index, "int64"
    if len({head.loader for head in heads}) > 1:
        own["loader"], leading["loader"] = _loader, "int64"
    if "name" not in found and _are_named(records):
        own["name"], leading["name"] = _name, "text"
    for key in leading.keys() & found.keys():
        del own[key], leading[key]  # what the user calls so is the user's
    return Content({**leading, **found}, records, store, own)


def types_in(records: Records, store: Store) -> dict[str, str]:
    """The type of each column of some rows, in the order in which they come.

    Raises:
        TypeError: As `content_of`.
    """
    found: dict[str, tuple[str, str]] = {}
    for record in records:
        try:
            row = _row_of(record, store)
        except (ReadError, ValueError):
            continue
        for key, value in row.items():
            known = found.get(key)
            kind = type_of(value)
            together = kind if known is None else common_type(known[0], kind)
            if together is None:
                assert known is not None
                raise TypeError(
                    f"column {key!r} is {known[0]} in sample {known[1]!r:.200} and {kind} in {record.name!r:.200}"
                )
            if known is None or together != known[0]:
                found[key] = together, record.name
    return {key: kind for key, (kind, _) in found.items()}


def _row_of(record: Record, store: Store) -> dict[str, Any]:
    """A sample's row.

    Raises:
        ReadError: It is gone.
        ValueError: It is damaged.
    """
    place = place_of(record)
    if place is None:
        raise ValueError("it is not recorded where it lies")
    data = store.read(place)
    if checksum([memoryview(data)]) != place.checksum:
        raise ValueError("its row is damaged")
    return unpack_row(data)


def _are_named(records: Records) -> bool:
    """Whether a sample has a name of its own, and not its index, counted on over the loaders or behind the loader."""
    begins: dict[int, int] = {}
    for block in records.blocks:
        if not block.head.has_index:
            return True
        rows = block.rows()[:1] if block.head.numbered == _BY_INDEX else block.rows()
        for record in map(block.record, rows.tolist()):
            if record.index is None:
                return True
            if record.name == f"{record.loader}-{record.index}":
                continue
            if not _NUMBER.fullmatch(record.name):
                return True
            begin = int(record.name) - record.index
            if begins.setdefault(record.loader, begin) != begin:
                return True
    in_order = [begins[loader] for loader in sorted(begins)]
    return in_order != sorted(in_order) or begins.get(0, 0) != 0


def _index(record: Record) -> int | None:
    return record.index


def _loader(record: Record) -> int:
    return record.loader


def _name(record: Record) -> str:
    return record.name
