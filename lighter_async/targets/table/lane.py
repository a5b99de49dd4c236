"""A worker's way into a table: the rows of a unit go to the end of its spool in one write."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lighter_async.table_row import layout_of, type_of, unpack_row
from lighter_async.targets.earlier import Earlier
from lighter_async.targets.lane import Item, Lane, Outcome, Placed, PlacedRows, RowItems
from lighter_async.targets.open_part import AppendedPart
from lighter_async.targets.table.columns import Columns
from lighter_async.targets.table.spool import Spools

__all__ = ["TableLane"]

_MOST_WAITING = 4 << 20  # bytes


@dataclass(eq=False)
class TableLane(Lane):
    """Appends rows to a spool of its own.

    Attributes:
        spools: Where.
        columns: What rows may have.
        number: Which of the workers it is for.
        earlier: What earlier runs have stored, where that is not stored again.
    """

    spools: Spools
    columns: Columns
    number: int
    earlier: Earlier | None = None
    _spool: AppendedPart | None = None
    _waiting: list[bytes] = field(default_factory=list)
    _nbytes: int = 0

    takes_rows = True

    @property
    def is_full(self) -> bool:  # type: ignore[override]
        """Whether what waits takes as much memory as it may."""
        return self._nbytes >= _MOST_WAITING

    def recover(self, ends: Callable[[Sequence[str]], dict[str, int]]) -> None:
        """What could not be recorded stays in a spool that gets no more rows."""
        self.close()

    def put(self, item: Item, *, redelivered: bool) -> Outcome | None:
        if self.earlier is not None and self.earlier.keeps([item.name]):
            return False
        data = b"".join([piece for part in item.parts for piece in part.data])
        self._check(data, item.name)
        self._waiting.append(data)
        self._nbytes += len(data)
        return None

    def put_rows(self, items: RowItems, on_progress: Callable[[int], None]) -> PlacedRows | None:
        (part,) = items.parts
        size, count = part.encoded.nbytes, len(items.names)
        if self.earlier is not None or size * count > _MOST_WAITING:
            return None
        rows = np.empty((count, size), np.uint8)
        part.encoded.fill(rows)
        self._check_rows(rows, items.names)
        spool, begin = self._write([rows.data.cast("B")])
        spool.settled = spool.end
        return PlacedRows(spool.name, (begin,), size)

    def settle(self, on_progress: Callable[[int], None]) -> list[Outcome | BaseException]:
        waiting = self._waiting
        self.leave()
        if not waiting:
            return []
        on_progress(0)
        try:
            spool, place = self._write([b"".join(waiting)])
        except OSError as error:
            return [error] * len(waiting)
        spool.settled = spool.end
        outcomes: list[Outcome | BaseException] = []
        for data in waiting:
            outcomes.append(Placed(spool.name, (place,)))
            place += len(data)
        return outcomes

    def leave(self) -> None:
        self._waiting, self._nbytes = [], 0

    def close(self) -> None:
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    def _check_rows(self, rows: NDArray[np.uint8], names: Sequence[str]) -> None:
        """As `_check`, of rows that are laid out alike, as a table's encoder makes them of columns."""
        first = rows[0].tobytes()
        self._check(first, names[0])
        layout = layout_of(first)
        for key, slot in layout.slots.items() if layout is not None else ():
            if slot.kind:
                continue  # that of the first one
            values = slot.values(rows)
            kinds = list(map(type, values))
            for kind in set(kinds):
                place = kinds.index(kind)
                self.columns.check({key: type_of(values[place])}, names[place])

    def _check(self, data: bytes, sample: str) -> None:
        types = {}
        for key, value in unpack_row(data).items():
            try:
                types[key] = type_of(value)
            except TypeError as error:
                raise TypeError(
                    f"column {key!r} of sample {sample!r:.200} is {error}, and a column has one type"
                ) from None
        self.columns.check(types, sample)

    def _write(self, pieces: Sequence[bytes | memoryview]) -> tuple[AppendedPart, int]:
        """Append to the spool; returns it, and where that begins in it.

        Raises:
            OSError: It could not be written. Nothing is left that counts.
        """
        spool = self._spool
        if spool is not None and not spool.is_there:
            self.close()
            raise FileNotFoundError(errno.ENOENT, "somebody has removed the rows of the table", spool.path)
        if spool is None:
            spool = self._spool = self.spools.begin(self.number)
        begin = spool.append(pieces)
        if self.spools.is_synced:
            try:
                spool.sync()
            except OSError:
                spool.drop_unsettled()
                raise
        return spool, begin
