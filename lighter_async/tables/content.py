"""The rows of a table in the data set's order, a chunk at a time, so that a table need not fit into memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from lighter_async.manifest.block import Block
from lighter_async.manifest.records import Records
from lighter_async.store import Store
from lighter_async.table_row import common_type
from lighter_async.tables.columns import Chunk, column_of, own_column
from lighter_async.tables.reading import rows_in_chunks

__all__ = ["Content", "content_of", "types_in"]

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_ROWS = 1 << 15  # that are looked at together
_BY_INDEX = 1  # `Head.numbered` of samples whose names are their indices


@dataclass(slots=True)
class Content:
    """What a table holds.

    Attributes:
        types: The type of each column, in their order: first what tells samples apart, then what was stored of them.
        records: Of the samples, in the data set's order.
        own: Those of the columns that tell samples apart.
        store: What reads the rows.
        unread: Samples whose rows cannot be read, and that are left out, as far as `chunks` has come; and why.
    """

    types: dict[str, str]
    records: Records
    own: tuple[str, ...]
    store: Store
    unread: list[tuple[str, str]] = field(default_factory=list)

    def chunks(self) -> Iterator[Chunk]:
        """The rows, in the data set's order.

        Raises:
            TypeError: A sample has a column that the table has not, or one of another type.
        """
        self.unread = []
        stored = {key: kind for key, kind in self.types.items() if key not in self.own}
        for some in rows_in_chunks(self.records, self.store):
            self.unread += [(some.name(place), why) for place, why in sorted(some.unread.items())]
            if len(some.unread) == len(some):
                continue
            if not stored.keys() >= some.columns():
                raise TypeError("a sample has columns that the table has not")
            columns = {key: own_column(some, key) for key in self.own}
            columns.update((key, column_of(some, key, kind)) for key, kind in stored.items())
            yield Chunk(columns, len(some) - len(some.unread))


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
    found = {key: kind for key, (kind, _) in types_in(records, store).items()} if types is None else dict(types)
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
    return Content({**leading, **found}, records, tuple(leading), store)


def types_in(records: Records, store: Store) -> dict[str, tuple[str, str]]:
    """The type of each column of some rows, in the order in which they come, and a sample that has it.

    Args:
        records: Of one series.
        store: What reads the rows.

    Raises:
        TypeError: As `content_of`.
    """
    found: dict[str, tuple[str, str]] = {}
    for some in rows_in_chunks(records, store):
        for place, types in sorted(some.types(), key=lambda one: one[0]):
            for key, kind in types.items():
                known = found.get(key)
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
        for begin in _beginnings(block):
            if begin is None or begins.setdefault(block.head.loader, begin) != begin:
                return True
    in_order = [begins[loader] for loader in sorted(begins)]
    return in_order != sorted(in_order) or begins.get(0, 0) != 0


def _beginnings(block: Block) -> Iterator[int | None]:
    """The numbers that samples' indices were counted on from to their names; None where one has a name of its own."""
    if block.head.numbered == _BY_INDEX:
        yield 0
        return
    numbers, indices, rows = block.number_column(), block.indices.view(), block.rows()
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        if numbers is not None:
            yield from np.unique(numbers[some].astype(np.int64) - indices[some]).tolist()
            continue
        for name, index in zip(block.names_at(some), indices[some].tolist(), strict=True):
            if name != f"{block.head.loader}-{index}":
                yield int(name) - index if _NUMBER.fullmatch(name) else None
