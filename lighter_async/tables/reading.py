"""Reads rows from their spools: many at once where they are laid out alike, and one by one otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from xxhash import xxh3_64_digest

from lighter_async.manifest.block import Block
from lighter_async.manifest.records import Records
from lighter_async.store import Store
from lighter_async.table_row import layout_of, type_of, unpack_row

__all__ = ["ALIKE", "Alike", "Some", "Values", "rows_in_chunks"]

ALIKE = 16
"""So many rows at least are looked at together."""

_ROWS = 1 << 15  # of a chunk
_BYTES = 16 << 20  # of a chunk, unless a row alone has more
_LAYOUTS = 16  # that are tried for rows of one size
_NOWHERE = "it is not recorded where its row lies"
_DAMAGED = "its row is damaged"
_SMALL = 512  # bytes of a row

Values: TypeAlias = "NDArray[Any] | list[Any]"


@dataclass(frozen=True, slots=True)
class Alike:
    """Rows that are laid out alike.

    Attributes:
        places: Of each row in the chunk.
        kinds: The type of each column; empty where each value has its own.
        values: Those of each column: numbers as an array; else a list.
    """

    places: NDArray[np.int64]
    kinds: Mapping[str, str]
    values: Mapping[str, Values]


@dataclass(frozen=True, slots=True)
class Some:
    """Some rows that follow each other in the data set's order: a chunk.

    Attributes:
        blocks: The blocks of all records.
        numbers: The number of the block of each row, and of the row there.
        alike: Rows that are laid out alike.
        others: Other rows, by their places in the chunk, as `unpack_row` gives them.
        unread: Why rows cannot be read, by their places in the chunk.
    """

    blocks: Sequence[Block]
    numbers: tuple[NDArray[np.int64], NDArray[np.int64]]
    alike: list[Alike] = field(default_factory=list)
    others: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    unread: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers[0])

    def columns(self) -> set[str]:
        """The columns that were stored of a row or more."""
        return set().union(*(alike.kinds for alike in self.alike), *self.others.values())

    def types(self) -> Iterator[tuple[int, Mapping[str, str]]]:
        """The types of columns that rows have, and the place of such a row."""
        for alike in self.alike:
            keys = [key for key, kind in alike.kinds.items() if not kind]
            first = {key: kind or type_of(alike.values[key][0]) for key, kind in alike.kinds.items()}
            yield int(alike.places[0]), first
            for number, place in enumerate(alike.places.tolist() if keys else ()):
                yield place, {key: type_of(alike.values[key][number]) for key in keys}
        for place, row in self.others.items():
            yield place, {key: type_of(value) for key, value in row.items()}

    def name(self, place: int) -> str:
        """The name of the sample at a place."""
        numbers, rows = self.numbers
        return self.blocks[int(numbers[place])].name(int(rows[place]))


def rows_in_chunks(records: Records, store: Store) -> Iterator[Some]:
    """All rows in the data set's order, a chunk at a time.

    Args:
        records: Of one series.
        store: What reads the rows.
    """
    for numbers, rows in records.rows_in_order(_ROWS):
        sizes = np.zeros(len(rows), np.int64)
        for number in np.unique(numbers).tolist():
            there = numbers == number
            sizes[there] = _sizes_of(records.blocks[number], rows[there])
        ends = np.cumsum(np.maximum(sizes, 1))
        start = 0
        while start < len(rows):
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + _BYTES, side="right")))
            some = Some(records.blocks, (numbers[start:stop], rows[start:stop]))
            for number in np.unique(some.numbers[0]).tolist():
                _read(some, number, np.flatnonzero(some.numbers[0] == number), store)
            yield some
            start = stop


def _sizes_of(block: Block, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    if not block.head.has_offsets:
        return np.zeros(len(rows), np.int64)
    return block.sizes_at(rows)


def _read(some: Some, number: int, places: NDArray[np.int64], store: Store) -> None:
    """Read the rows of one block.

    The spool is mapped no longer than that: each mapping has a descriptor, and what was read counts as memory in use.
    """
    block = some.blocks[number]
    try:
        found = store.mapped(block.head.object) if block.head.has_offsets and block.head.object else None
    except (OSError, ValueError) as error:
        why = f"its rows cannot be read ({type(error).__name__}: {error})"
        some.unread.update(dict.fromkeys(places.tolist(), why))
        return
    if found is None:
        some.unread.update(dict.fromkeys(places.tolist(), _NOWHERE))
        return
    spool = found.view(np.ndarray)
    rows = some.numbers[1][places]
    begins = block.offsets.view()[rows].astype(np.int64)
    sizes = _sizes_of(block, rows)
    checksums = np.frombuffer(block.xxh3, np.uint8).reshape(-1, 8)[rows]
    is_there = (sizes > 0) & (begins <= len(spool) - sizes)
    some.unread.update(dict.fromkeys(places[~is_there].tolist(), _DAMAGED))
    for size in np.unique(sizes[is_there]).tolist():
        of_size = np.flatnonzero(is_there & (sizes == size))
        # Copied, one row behind the other: the windows are the spool's own memory.
        data = np.ascontiguousarray(sliding_window_view(spool, size)[begins[of_size]])
        is_sound = _are_sound(data, checksums[of_size])
        if not is_sound.all():
            some.unread.update(dict.fromkeys(places[of_size[~is_sound]].tolist(), _DAMAGED))
            of_size, data = of_size[is_sound], data[is_sound]
        _take(some, places[of_size], data)


def _are_sound(data: NDArray[np.uint8], checksums: NDArray[np.uint8]) -> NDArray[np.bool_]:
    rows = data.view(f"V{data.shape[1]}")[:, 0].tolist() if data.shape[1] <= _SMALL else data
    found = np.frombuffer(b"".join(map(xxh3_64_digest, rows)), np.uint8)
    is_sound: NDArray[np.bool_] = (found.reshape(-1, 8) == checksums).all(axis=1)
    return is_sound


def _take(some: Some, places: NDArray[np.int64], data: NDArray[np.uint8]) -> None:
    """Add rows of one size, by how they are laid out."""
    for _ in range(_LAYOUTS):
        if len(data) < ALIKE or (layout := layout_of(data[0].tobytes())) is None:
            break
        fit = layout.fit(data)
        if fit is not None and not fit[0]:
            break
        own = data if fit is None else data[fit]
        try:
            values = {key: slot.values(own) for key, slot in layout.slots.items()}
            kinds = {key: slot.kind for key, slot in layout.slots.items()}
        except Exception:  # of anybody's bytes, which are told one by one
            break
        some.alike.append(Alike(places if fit is None else places[fit], kinds, values))
        if fit is None:
            return
        places, data = places[~fit], data[~fit]
    for place, row in zip(places.tolist(), data, strict=True):
        try:
            some.others[place] = unpack_row(row.data)
        except Exception as error:  # of anybody's bytes
            some.unread[place] = f"its row is not valid ({type(error).__name__}: {error})"
