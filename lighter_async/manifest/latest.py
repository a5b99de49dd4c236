"""Which of several records of the same file or sample still holds: the latest, whichever rank wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lighter_async.manifest.block import Block
from lighter_async.manifest.entry import Dropped
from lighter_async.manifest.keys import key_in_series, key_of, keys_of_places

__all__ = ["Drop", "keep_latest"]

_CHUNK = 1 << 20


class Drop(NamedTuple):
    """A line that takes a record back.

    Attributes:
        entry: What it says.
        source: The number of its manifest.
        order: Its number there.
    """

    entry: Dropped
    source: int
    order: int


def keep_latest(blocks: Sequence[Block], drops: Sequence[Drop], sequences: Mapping[str, int]) -> list[Dropped]:
    """Mark the samples whose records later ones have replaced or taken back; returns the drops that hold.

    Within one manifest the later line counts. Between the manifests of several ranks the later run counts, by the runs'
    order and not by clocks.

    Args:
        blocks: The samples.
        drops: What takes some of them back.
        sequences: The places of the runs in their order; 0 or none of runs that have none, which go by their time.
    """
    drops = [drop for drop in drops if drop.entry.file is not None]
    if not drops and _are_distinct_numbers(blocks):
        return []
    keys = [block.keys() for block in blocks]
    keys.append(np.array([_key_of_dropped(drop.entry) for drop in drops], np.uint64))
    starts = np.cumsum([0, *map(len, keys)])
    all_keys = np.concatenate(keys)
    keys.clear()  # they take eight bytes for each of perhaps millions of samples
    doubled = _doubled(all_keys)
    if doubled is None:
        return [drop.entry for drop in drops]
    suspects = np.flatnonzero(_is_among(all_keys, doubled))
    column = _Column(blocks, drops, suspects, starts)
    source = column([block.head.source for block in blocks], [drop.source for drop in drops])
    sequence = column(
        [sequences.get(block.head.run, 0) for block in blocks], [sequences.get(drop.entry.run, 0) for drop in drops]
    )
    order = column.of_lines("orders", [drop.order for drop in drops], np.int64)
    time = column.of_lines("times", [drop.entry.time for drop in drops], np.float64)
    time[sequence > 0] = 0.0
    key = all_keys[suspects]
    # The last line of each manifest, and of these the latest run's.
    last = _last_of_each(np.lexsort((order, source, key)), key, source)
    last = last[_last_of_each(np.lexsort((source[last], time[last], sequence[last], key[last])), key[last])]
    is_dead = np.ones(len(suspects), np.bool_)
    is_dead[last] = False
    dead = suspects[is_dead]
    for number, block in enumerate(blocks):
        rows = dead[np.searchsorted(dead, starts[number]) : np.searchsorted(dead, starts[number + 1])] - starts[number]
        if len(rows):
            block.alive = np.ones(block.count, np.bool_)
            block.alive[rows] = False
    dead_drops = set((dead[np.searchsorted(dead, starts[-2]) :] - starts[-2]).tolist())
    return [drop.entry for number, drop in enumerate(drops) if number not in dead_drops]


def _key_of_dropped(entry: Dropped) -> int:
    if entry.offset and entry.file is not None:
        return int(keys_of_places(entry.file, np.array([entry.offset]))[0])
    return key_of(entry.file or "") if entry.series is None else key_in_series(entry.name, entry.series)


def _are_distinct_numbers(blocks: Sequence[Block]) -> bool:
    """Whether all samples are files named after numbers, and no two of one suffix have one: nearly always so."""
    by_suffix: dict[str, list[NDArray[np.int64]]] = {}
    for block in blocks:
        numbers, suffix = block.number_column(), block.head.suffix
        if numbers is None or suffix is None or (suffix and not suffix.startswith(".")):
            return False
        by_suffix.setdefault(suffix, []).append(numbers)
    for columns in by_suffix.values():
        count = sum(map(len, columns))
        most = max(int(column.max()) for column in columns)
        if most > 64 * count + _CHUNK:
            return False
        seen = np.zeros(most + 1, np.bool_)
        for column in columns:
            for start in range(0, len(column), _CHUNK):  # in parts, since numpy makes larger numbers of them
                seen[column[start : start + _CHUNK]] = True
        if np.count_nonzero(seen) < count:
            return False
    return True


def _doubled(keys: NDArray[np.uint64]) -> NDArray[np.uint64] | None:
    """The keys that are there twice or more, sorted; None if there are none."""
    ordered = np.sort(keys)
    doubled = ordered[1:][ordered[1:] == ordered[:-1]]
    return doubled if len(doubled) else None


def _is_among(keys: NDArray[np.uint64], some: NDArray[np.uint64]) -> NDArray[np.bool_]:
    found = np.empty(len(keys), np.bool_)
    for start in range(0, len(keys), _CHUNK):
        part = keys[start : start + _CHUNK]
        found[start : start + _CHUNK] = some.take(np.searchsorted(some, part), mode="clip") == part
    return found


def _last_of_each(order: NDArray[np.int64], *keys: NDArray[np.generic]) -> NDArray[np.int64]:
    """Of an order, the last one of each run of equal keys."""
    is_last = np.zeros(len(order), np.bool_)
    is_last[-1:] = True
    for key in keys:
        is_last[:-1] |= key[order[1:]] != key[order[:-1]]
    return order[is_last]


class _Column:
    """Gathers a value for each of some samples and drops, which are numbered one after the other."""

    def __init__(
        self, blocks: Sequence[Block], drops: Sequence[Drop], rows: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> None:
        self._blocks = blocks
        self._drops = drops
        self._rows = rows
        self._starts = starts
        self._cuts = np.searchsorted(rows, starts)

    def __call__(self, of_blocks: Sequence[int], of_drops: Sequence[int]) -> NDArray[np.int64]:
        counts = np.diff(self._cuts)[: len(self._blocks)]
        of_samples = np.repeat(np.array(of_blocks, np.int64), counts)
        return np.concatenate([of_samples, np.array(of_drops, np.int64)[self._of_drops]])

    def of_lines(self, what: str, of_drops: Sequence[float], dtype: type) -> NDArray[Any]:
        parts = []
        for number, block in enumerate(self._blocks):
            own = self._rows[self._cuts[number] : self._cuts[number + 1]] - self._starts[number]
            lines = np.searchsorted(np.frombuffer(block.starts, np.int64), own, side="right") - 1
            parts.append(np.frombuffer(getattr(block, what), dtype)[lines])
        return np.concatenate([*parts, np.array(of_drops, dtype)[self._of_drops]])

    @property
    def _of_drops(self) -> NDArray[np.int64]:
        of_drops: NDArray[np.int64] = self._rows[self._cuts[-2] :] - self._starts[-2]
        return of_drops
