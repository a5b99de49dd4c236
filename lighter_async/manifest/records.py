"""Samples that were stored, as a sequence of records that are made when they are looked at."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from copy import copy
from functools import cached_property
from itertools import accumulate, islice
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from lighter_async.manifest.block import Block
from lighter_async.manifest.entry import Record
from lighter_async.manifest.keys import key_of, keys_of

__all__ = ["Records"]

_T = TypeVar("_T")

_CHUNK = 1 << 16
_MOST = 1 << 63


class Records(Sequence[Record]):
    """Records in the data set's order: by loader, index, and time.

    Args:
        blocks: Where they are.
    """

    __slots__ = ("__dict__", "blocks")

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = [block for block in blocks if len(block)]

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        places = self._order[index]
        return self._at(int(places)) if isinstance(index, int) else [self._at(place) for place in places.tolist()]

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self._order), _CHUNK):
            yield from map(self._at, self._order[start : start + _CHUNK].tolist())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (Records, list)):
            return len(self) == len(other) and all(map(Record.__eq__, self, other))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Records: {len(self)}>"

    def __reduce__(self) -> tuple[type[Records], tuple[list[Block]]]:
        # Tables are left out: keys have another seed in another process.
        return Records, (self.blocks,)

    def where(self, wanted: Callable[[Block], bool]) -> Records:
        """The records of some of the blocks."""
        return Records([block for block in self.blocks if wanted(block)])

    def indices(self, loader: int) -> NDArray[np.int64]:
        """The indices in the data set of the samples of a loader, where they are known, in no order."""
        found = [block.index_column() for block in self.blocks if block.head.loader == loader and block.head.has_index]
        return _joined(found)

    def prepare(self) -> None:
        """Make now what `names_at` needs, which takes seconds for millions of records."""
        for loader in {block.head.loader for block in self.blocks}:
            self.names_at(loader, [0])

    def names_at(self, loader: int, indices: Sequence[int]) -> list[str | None]:
        """The names of the samples of a loader with some indices, the latest one of each; None where there is none."""
        first, last, known = self._by_index(loader)
        if first == last:
            return [None] * len(indices)
        places = np.searchsorted(known, np.array(indices, np.int64), side="right") - 1
        found = self._order[first + np.maximum(places, 0)].tolist()
        hits = (places >= 0) & (known[np.maximum(places, 0)] == np.array(indices, np.int64))
        return [self._name(place) if hit else None for place, hit in zip(found, hits.tolist(), strict=True)]

    def number(self, name: str) -> int | None:
        """The place of a name in the order; None if it is not there. Of several samples of that name it is any one."""
        keys, numbers = self.by_name
        key = np.uint64(key_of(name))
        for number in numbers[np.searchsorted(keys, key) : np.searchsorted(keys, key, side="right")].tolist():
            if self._name(int(self._order[number])) == name:
                return int(number)
        return None

    def numbers_at(self, index: int, loader: int) -> range:
        """The places in the order of the samples of a loader with an index."""
        first, _, known = self._by_index(loader)
        if not -_MOST <= index < _MOST:
            return range(first, first)
        return range(
            first + int(np.searchsorted(known, index)), first + int(np.searchsorted(known, index, side="right"))
        )

    def first_clash(self, loader: int) -> tuple[Record, Record] | None:
        """Two samples of a loader with the same index, the smallest such index; None if there are none."""
        first, _, known = self._by_index(loader)
        doubled = known[1:] == known[:-1]
        if not doubled.any():
            return None
        number = first + int(doubled.argmax())
        return self[number], self[number + 1]

    def ordered_names(self) -> Iterator[str]:
        """The samples' names, in the order."""
        for start in range(0, len(self._order), _CHUNK):
            yield from map(self._name, self._order[start : start + _CHUNK].tolist())

    def leave_out(self, numbers: Sequence[int]) -> Records:
        """All but the records at some places of the order."""
        gone = np.sort(self._order[np.array(numbers, np.int64)])
        blocks = []
        for block, start in zip(self.blocks, self._first_rows, strict=True):
            rows = gone[np.searchsorted(gone, start) : np.searchsorted(gone, start + block.count)] - start
            if len(rows):
                alive = np.ones(block.count, np.bool_) if block.alive is None else block.alive.copy()
                alive[rows] = False
                block = copy(block)
                block.alive = alive
            blocks.append(block)
        return Records(blocks)

    def named(self, names: Collection[str]) -> list[Record]:
        """The records of the samples of some names."""
        return [record for record in self._of_keys(names, self.blocks, Block.name_keys) if record.name in names]

    def of_files(self, files: Collection[str]) -> list[Record]:
        """The records of some files."""
        known = [block for block in self.blocks if block.is_known]
        return [record for record in self._of_keys(files, known, Block.file_keys) if record.file in files]

    def at_places(self, places: Collection[tuple[str, int]]) -> list[Record]:
        """The records of what lies at some places: in an object, from an offset on."""
        objects = {object for object, _ in places}
        found = [record for record in self._of_arrays(places) if (record.file, record.offset) in places]
        others = Records([block for block in self.blocks if not block.head.is_array])
        return found + [record for record in others.of_files(objects) if (record.file, record.offset) in places]

    def _of_arrays(self, places: Collection[tuple[str, int]]) -> Iterator[Record]:
        offsets = np.array(sorted({offset for _, offset in places}), np.int64)
        for block in self.blocks:
            if block.head.is_array:
                hits = np.isin(block.offsets.view(), offsets)
                if block.alive is not None:
                    hits &= block.alive
                yield from map(block.record, np.flatnonzero(hits).tolist())

    @staticmethod
    def _of_keys(
        texts: Collection[str], blocks: Iterable[Block], keys_in: Callable[[Block], NDArray[np.uint64]]
    ) -> Iterator[Record]:
        """The records whose keys are those of some texts; by chance, a record of another text may be among them."""
        if not texts:
            return
        sought = np.sort(keys_of(list(texts)))
        for block in blocks:
            keys = keys_in(block)
            hits = sought.take(np.searchsorted(sought, keys), mode="clip") == keys
            if block.alive is not None:
                hits &= block.alive
            yield from map(block.record, np.flatnonzero(hits).tolist())

    def some_files(self, most: int) -> list[str]:
        """About `most` of the files, from everywhere."""
        step = max(1, len(self) // most)
        found = [block.file(row) for block in self.blocks for row in block.rows()[:: min(step, len(block))].tolist()]
        return [file for file in found if file is not None]

    def names(self) -> Iterator[str]:
        """The samples' names, in no order."""
        for block in self.blocks:
            yield from block.living_names()

    def files(self) -> Iterator[str]:
        """The files, in no order."""
        for block in self.blocks:
            yield from block.files()

    def without(self, some: Iterable[_T], file_of: Callable[[_T], str]) -> Iterator[_T]:
        """Those of some things whose files no record tells of."""
        rest = iter(some)
        while part := list(islice(rest, _CHUNK)):
            keys = keys_of([file_of(one) for one in part])
            known = (
                self._keys.take(np.searchsorted(self._keys, keys), mode="clip") == keys if len(self._keys) else keys < 0
            )
            yield from (one for one, is_known in zip(part, known.tolist(), strict=True) if not is_known)

    @cached_property
    def by_name(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The keys of the names, sorted, and the place in the order of each; of equal keys in this order."""
        order = self._order
        keys = _joined([block.name_keys() for block in self.blocks])[order]
        numbers = np.argsort(keys, kind="stable")
        return keys[numbers], numbers

    @cached_property
    def _keys(self) -> NDArray[np.uint64]:
        """The keys of all files, sorted."""
        known = [block for block in self.blocks if block.is_known]
        keys = [block.file_keys() if block.alive is None else block.file_keys()[block.alive] for block in known]
        found = np.concatenate([*keys, np.empty(0, np.uint64)])
        found.sort()
        return found

    @cached_property
    def _first_rows(self) -> list[int]:
        return list(accumulate((block.count for block in self.blocks[:-1]), initial=0))

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """The places of the records, in their order: the rows of all blocks one after the other."""
        groups: dict[tuple[int, bool], list[int]] = {}
        for number, block in enumerate(self.blocks):
            groups.setdefault((block.head.loader, not block.head.has_index), []).append(number)
        return _joined([self._order_of(groups[key]) for key in sorted(groups)])

    def _order_of(self, numbers: Sequence[int]) -> NDArray[np.int64]:
        """The places of the records of some blocks, of one loader, whose indices are all known, or none is."""
        blocks = [self.blocks[number] for number in numbers]
        places = _joined([self.blocks[number].rows() + self._first_rows[number] for number in numbers])
        index = _joined([block.index_column() for block in blocks])
        if len(index) and (index[1:] > index[:-1]).all():
            return places  # as nearly always
        time = _joined([block.column(block.times)[block.rows()] for block in blocks])
        return places[np.lexsort((time, index) if len(index) else (time,))]

    def _by_index(self, loader: int) -> tuple[int, int, NDArray[np.int64]]:
        """Where in the order the samples of a loader begin and end whose indices are known, and these."""
        found = self._of_loaders.get(loader)
        if found is None:
            first = sum(len(block) for block in self.blocks if block.head.loader < loader)
            count = sum(len(block) for block in self.blocks if block.head.loader == loader and block.head.has_index)
            indices = self.indices(loader).astype(np.int64)
            indices.sort()
            found = self._of_loaders[loader] = first, first + count, indices
        return found

    @cached_property
    def _of_loaders(self) -> dict[int, tuple[int, int, NDArray[np.int64]]]:
        return {}

    def _at(self, place: int) -> Record:
        block, row = self._row(place)
        return block.record(row)

    def _name(self, place: int) -> str:
        block, row = self._row(place)
        return block.name(row)

    def _row(self, place: int) -> tuple[Block, int]:
        if len(self.blocks) == 1:
            return self.blocks[0], place
        number = bisect_right(self._first_rows, place) - 1
        return self.blocks[number], place - self._first_rows[number]

    def rows_in_order(self, most: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The samples, some at a time: of each the number of its block, and of its row there.

        Args:
            most: How many at a time.
        """
        first = np.array(self._first_rows, np.int64)
        for start in range(0, len(self._order), most):
            places = self._order[start : start + most]
            numbers = np.searchsorted(first, places, side="right") - 1
            yield numbers, places - first[numbers]

    def columns(self) -> dict[str, list[Any]]:
        """The fields of `Record`, each as a list."""
        columns: dict[str, list[Any]] = {name: [] for name in Record.__slots__}
        appends = [(name, column.append) for name, column in columns.items()]
        for record in self:
            for name, append in appends:
                append(getattr(record, name))
        return columns


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Columns one after the other; one that is alone is not copied."""
    some = [part for part in parts if len(part)]
    return some[0] if len(some) == 1 else np.concatenate(some) if some else np.empty(0, np.int64)
