"""A worker's way into an array: a unit whose rows follow each other is one write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lighter_async.targets.array.file import ArrayFile
from lighter_async.targets.array.part import Kind, Part
from lighter_async.targets.array.recorded import EarlierRows
from lighter_async.targets.lane import Item, Lane, Outcome, Placed, PlacedRows, RowItems
from lighter_async.whole_files import write_at

__all__ = ["ArrayLane"]

_MOST_COPIED = 4 << 20  # bytes of a unit that are gathered for one write; larger samples are written as they lie
_MOST_WAITING = 256  # samples


class RowsOf(Protocol):
    """As `ArraysTarget.rows_of`."""

    def __call__(self, indices: Sequence[int], loader: int, names: Sequence[str] | None = None) -> Sequence[int]:
        """As there."""
        ...


@dataclass(eq=False)
class ArrayLane(Lane):
    """Writes rows at their places in a file that other workers write to as well.

    What is written and not recorded does no harm: such a row counts as not stored, and is written over. So there is
    nothing to cut off.

    Attributes:
        file: The array.
        rows_of: Gives the rows of samples.
        earlier: What earlier runs have stored, where that is not stored again.
    """

    file: ArrayFile
    rows_of: RowsOf
    earlier: EarlierRows | None = None
    _part: Part | None = None
    _kind: Kind | None = None  # of the part's rows, as samples have it
    _waiting: list[Placed] = field(default_factory=list)  # to be synced
    _buffer: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))

    takes_rows = True

    @property
    def is_full(self) -> bool:  # type: ignore[override]
        """Whether it is time to sync."""
        return len(self._waiting) >= _MOST_WAITING

    def put(self, item: Item, *, redelivered: bool) -> Outcome | None:
        if item.index is None:
            raise ValueError(
                f"sample {item.name!r:.200} has no index in the data set, which is its row; hand it over with "
                "origin=Origin([INDEX])"
            )
        if item.kind is None or len(item.parts) != 1:
            raise TypeError(
                f"sample {item.name!r:.200} is no plain tensor or array, so it cannot be a row; make one of it "
                "(tensor.to_dense(), tensor.dequantize(), numpy.asarray(value))"
            )
        (row,) = self.rows_of([item.index], item.loader, [item.name])
        part = self._part_for(item.kind, item.name)
        if self.earlier is not None and self.earlier.has(row, part.layout):
            return False
        data = list(item.parts[0].data)
        size = sum([piece.nbytes for piece in data])
        if size != part.layout.row_bytes:
            raise ValueError(
                f"sample {item.name!r:.200} has {size} bytes, and a row of {self.file.path!r} {part.layout.row_bytes}"
            )
        offset = part.layout.offset(row)
        write_at(part.descriptor, data, offset)
        placed = Placed(self.file.name, (offset,))
        if not self.file.is_synced:
            return placed
        self._waiting.append(placed)
        return None

    def put_rows(self, items: RowItems, on_progress: Callable[[int], None]) -> PlacedRows | None:
        encoded = items.parts[0].encoded
        size, count, memory = encoded.nbytes, len(items.names), encoded.memory
        if self.earlier is not None or items.indices is None or items.kind is None or len(items.parts) != 1:
            return None
        if memory is None and size * count > _MOST_COPIED:
            return None
        rows = _progression(self.rows_of(items.indices, items.loader, items.names))
        if rows is None:
            return None
        part = self._part_for(items.kind, items.names[0])
        if size != part.layout.row_bytes:
            return None
        if memory is None:
            if self._buffer.size < size * count:
                self._buffer = np.empty(size * count, np.uint8)
            memory = self._buffer[: size * count].reshape(count, size)
            encoded.fill(memory)
        offset = part.layout.offset(rows[0])
        if rows.step == 1:
            write_at(part.descriptor, [memory.data], offset)
        else:
            for data, row in zip(memory, rows, strict=True):
                write_at(part.descriptor, [data.data], part.layout.offset(row))
        if self.file.is_synced:
            part.sync()
        return PlacedRows(self.file.name, (offset,), rows.step * size)

    def settle(self, on_progress: Callable[[int], None]) -> list[Outcome | BaseException]:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        on_progress(0)
        try:
            if self._part is not None:
                self._part.sync()
        except OSError as error:
            return [error] * len(waiting)
        return list(waiting)

    def seal(self) -> Sequence[str]:
        self.close()
        return (self.file.name,) if self.file.seal() else ()

    def leave(self) -> None:
        self._waiting = []

    def close(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            part.close()

    def _part_for(self, kind: Kind, sample: str) -> Part:
        """The part, to which nobody has written rows of another kind.

        Raises:
            ValueError: As `ArrayFile.take_up`.
            OSError: Likewise.
        """
        part = self._part
        if part is None or not part.is_there:
            self.close()
            part = self._part = self.file.take_up(kind, sample)
            self._kind = kind
        elif kind != self._kind and not part.layout.is_of(kind):
            raise self.file.of_other_kind(part.layout, kind, sample)
        return part


def _progression(rows: Sequence[int]) -> range | None:
    """Rows as a range; None if they are not an ascending one."""
    if isinstance(rows, range):
        return rows if rows.step > 0 else None
    first, step = rows[0], rows[1] - rows[0] if len(rows) > 1 else 1
    if step < 1:
        return None
    found = range(first, first + step * len(rows), step)
    return found if tuple(found) == tuple(rows) else None
