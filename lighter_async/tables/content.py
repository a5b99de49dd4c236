"""The rows of a table in the data set's order, a chunk at a time, so that a table need not fit into memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_digest

from lighter_async.manifest.block import Block
from lighter_async.manifest.records import Records
from lighter_async.store import Store
from lighter_async.table_row import common_type, type_of, unpack_row

__all__ = ["Chunk", "Content", "content_of", "types_in"]

_ROWS = 1 << 15  # of a chunk
_MAPPED = 32  # spools
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_NOWHERE = "it is not recorded where its row lies"
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
        own: Those of the columns that tell samples apart.
        unread: Samples whose rows cannot be read, and that are left out, as far as `chunks` has come; and why.
    """

    types: dict[str, str]
    records: Records
    own: tuple[str, ...]
    _rows: _Rows
    unread: list[tuple[str, str]] = field(default_factory=list)

    def chunks(self) -> Iterator[Chunk]:
        """The rows, in the data set's order.

        Raises:
            TypeError: A sample has a column that the table has not.
        """
        self.unread = []
        stored = [key for key in self.types if key not in self.own]
        known = set(stored)
        for some in self._rows.chunks():
            read = [row for row in some.rows if not isinstance(row, str)]
            self.unread += [(some.name(place), row) for place, row in enumerate(some.rows) if isinstance(row, str)]
            if not read:
                continue
            if not known.issuperset(key for row in read for key in row):
                raise TypeError("a sample has columns that the table has not")
            columns = {key: some.own(key) for key in self.own}
            columns.update((key, [row.get(key) for row in read]) for key in stored)
            yield Chunk(columns, len(read))


@dataclass(frozen=True, slots=True)
class _Some:
    """Some rows in the data set's order.

    Attributes:
        rows: Each row; why it cannot be read otherwise.
        blocks: The block of each.
        numbers: The number of its block, and of its row there, of each.
    """

    rows: list[dict[str, Any] | str]
    blocks: Sequence[Block]
    numbers: tuple[NDArray[np.int64], NDArray[np.int64]]

    def name(self, place: int) -> str:
        numbers, rows = self.numbers
        return self.blocks[int(numbers[place])].name(int(rows[place]))

    def own(self, key: str) -> list[Any]:
        """What tells the rows apart that could be read, as a column."""
        numbers, rows = self.numbers
        if key == "name":
            found = [self.blocks[number].name(row) for number, row in zip(numbers.tolist(), rows.tolist(), strict=True)]
        elif key == "loader":
            found = [self.blocks[number].head.loader for number in numbers.tolist()]
        else:
            found = [None] * len(rows)
            for number in np.unique(numbers).tolist():
                block, places = self.blocks[number], np.flatnonzero(numbers == number)
                if block.head.has_index:
                    indices = block.indices.view()[rows[places]].tolist()
                    for place, index in zip(places.tolist(), indices, strict=True):
                        found[place] = index
        return [one for one, row in zip(found, self.rows, strict=True) if not isinstance(row, str)]


class _Rows:
    """Reads rows from their spools, of which the latest ones that were looked at stay mapped."""

    def __init__(self, records: Records, store: Store) -> None:
        self._records = records
        self._store = store
        self._spools: dict[str, memoryview | str] = {}

    def chunks(self) -> Iterator[_Some]:
        """All rows, some at a time."""
        blocks = self._records.blocks
        for numbers, places in self._records.rows_in_order(_ROWS):
            rows: list[dict[str, Any] | str] = [_NOWHERE] * len(numbers)
            for number in np.unique(numbers).tolist():
                there = np.flatnonzero(numbers == number)
                for place, row in zip(there.tolist(), self._read(blocks[number], places[there]), strict=True):
                    rows[place] = row
            yield _Some(rows, blocks, (numbers, places))

    def _read(self, block: Block, rows: NDArray[np.int64]) -> Iterator[dict[str, Any] | str]:
        spool = self._spool(block.head.object) if block.head.has_offsets else _NOWHERE
        if isinstance(spool, str):
            yield from [spool] * len(rows)
            return
        begins = block.offsets.view()[rows].astype(np.int64)
        ends = begins + block.size_column()[rows]
        checksums = bytes(np.frombuffer(block.xxh3, np.uint8).reshape(-1, 8)[rows])
        place = 0
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            data = spool[begin:end]
            if xxh3_64_digest(data) != checksums[place : place + 8] or len(data) != end - begin:
                yield "its row is damaged"
            else:
                try:
                    yield unpack_row(data)
                except Exception as error:  # of anybody's bytes
                    yield f"its row is not valid ({type(error).__name__}: {error})"
            place += 8

    def _spool(self, name: str | None) -> memoryview | str:
        if name is None:
            return _NOWHERE
        found = self._spools.pop(name, None)
        if found is None:
            if len(self._spools) >= _MAPPED:
                del self._spools[next(iter(self._spools))]  # each has a descriptor, of which there are not many
            try:
                found = self._store.mapped(name).data
            except (OSError, ValueError) as error:
                found = f"its rows cannot be read ({type(error).__name__}: {error})"
        self._spools[name] = found
        return found


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
    rows = _Rows(records, store)
    found = {key: kind for key, (kind, _) in _types_in(rows).items()} if types is None else dict(types)
    heads = [block.head for block in records.blocks]
    leading: dict[str, str] = {}
    if any(head.has_index for head in heads):
        leading["index"] = "int64"
    if len({head.loader for head in heads}) > 1:
        leading["loader"] = "int64"
    if "name" not in found and _are_named(records):
        leading["name"] = "text"
    for key in leading.keys() & found.keys():
        del leading[key]  # what the user calls so is the user's
    return Content({**leading, **found}, records, tuple(leading), rows)


def types_in(records: Records, store: Store) -> dict[str, tuple[str, str]]:
    """The type of each column of some rows, in the order in which they come, and a sample that has it.

    Args:
        records: Of one series.
        store: What reads the rows.

    Raises:
        TypeError: As `content_of`.
    """
    return _types_in(_Rows(records, store))


def _types_in(rows: _Rows) -> dict[str, tuple[str, str]]:
    """As `types_in`.

    Raises:
        TypeError: As `content_of`.
    """
    found: dict[str, tuple[str, str]] = {}
    for some in rows.chunks():
        for place, row in enumerate(some.rows):
            for key, value in row.items() if not isinstance(row, str) else ():
                known, kind = found.get(key), type_of(value)
                together = kind if known is None else common_type(known[0], kind)
                if together is None:
                    assert known is not None
                    raise TypeError(
                        f"column {key!r} is {known[0]} in sample {known[1]!r:.200} and {kind} in "
                        f"{some.name(place)!r:.200}"
                    )
                if known is None or together != known[0]:
                    found[key] = together, some.name(place)
    return found


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
