"""A worker's way through a unit whose samples are alike: all of them are encoded, stored and recorded at once."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_hexdigest

from lighter_async.manifest import Kind, Stored, StoredPart, StoredRows
from lighter_async.names import with_suffixes
from lighter_async.plain_memory import EncodedRows
from lighter_async.targets import Lane, PlacedRows, RowItems, RowPart
from lighter_async.types import Result
from lighter_async.workers.encoding import ready
from lighter_async.workers.storing import Work

__all__ = ["write_rows"]


def write_rows(work: Work, lane: Lane) -> Result | None:
    """Write all samples of a unit at once; None if they have to be written one by one, and nothing was done.

    Whatever goes wrong before they are stored is met again, told and tried again where they are written one by one.

    Args:
        work: The unit's.
        lane: The worker's own.
    """
    unit, outputs = work.unit, work.job.outputs
    if unit.redelivered or not outputs or not all(output.encoder.takes_rows for output in outputs):
        return None
    work.begin(unit.start)
    began = perf_counter()
    try:
        columns = _columns_of(work)
        items = None if columns is None else _items_of(work, columns)
        if columns is None or items is None:
            return None
        placed = lane.put_rows(items, work.note_progress)
    except Exception:
        return None
    if placed is None:
        return None
    for column in columns:
        column.finish()
    encode_seconds = sum([column.seconds for column in columns])
    work.result.encode_seconds += encode_seconds
    work.result.store_seconds += perf_counter() - began - encode_seconds
    if isinstance(placed, PlacedRows):
        object, offsets, stride = placed.object, placed.offsets, placed.stride
    elif all(outcome is True for outcome in placed):
        object, offsets, stride = None, (0,) * len(columns), 0
    else:
        work.take_outcomes(lane, _each_stored(unit.start, items, columns), placed)
        return work.settle()
    work.job.patience.note_space_available()
    parts = [
        StoredPart(column.nbytes, "".join(column.checksums), offset, column.kind)
        for column, offset in zip(columns, offsets, strict=True)
    ]
    return work.record_rows(StoredRows(unit.start, object, stride, parts), items.names)


def _columns_of(work: Work) -> list[_Column] | None:
    """What is stored of the samples of a unit, output by output; None if one of them gives no rows."""
    unit, staged = work.unit, ready(work.unit)
    columns = []
    for output in work.job.outputs:
        kind: Kind = None
        if output.encoder.takes_columns:
            some = staged.columns_between(unit.start, unit.stop)
            encoded = None if some is None else output.encoder.encode_columns(some)
        else:
            rows = staged.rows_between(unit.start, unit.stop, output.key)
            encoded = None if rows is None else output.encoder.encode_rows(rows)
            kind = None if rows is None else (rows.dtype, rows.shape)
        if encoded is None:
            return None
        columns.append(_Column(output.suffix, kind, encoded, with_checksums=work.job.session.log is not None))
    return columns


def _items_of(work: Work, columns: Sequence[_Column]) -> RowItems | None:
    """The samples of a unit; None if they have no indices where the target needs them."""
    batch, start, stop = work.unit.batch, work.unit.start, work.unit.stop
    names = batch.names[start:stop]
    parts = [RowPart(column.suffix, column.encoded) for column in columns]
    if not work.job.takes_arrays:
        return RowItems(names, parts)
    origin = batch.origin
    if origin is None or origin.indices is None:
        return None
    return RowItems(names, parts, origin.indices[start:stop], origin.loader, columns[0].kind)


def _each_stored(start: int, items: RowItems, columns: Sequence[_Column]) -> list[Stored]:
    """What is recorded of samples that are stored by themselves."""
    first, *others = columns
    files = with_suffixes(items.names, first.suffix)
    nothing = [""] * len(files)
    stored = [
        Stored(start + number, file, first.nbytes, checksum)
        for number, (file, checksum) in enumerate(zip(files, first.checksums or nothing, strict=True))
    ]
    if others:
        sizes = [column.nbytes for column in others]
        for one, *checksums in zip(stored, *(column.checksums or nothing for column in others), strict=True):
            one.others = list(zip(sizes, checksums, strict=True))
    return stored


class _Column:
    """An output of the samples of a unit. It encodes where a lane wants it, and takes checksums while it is at it."""

    def __init__(self, suffix: str, kind: Kind, encoded: EncodedRows, *, with_checksums: bool) -> None:
        self.suffix = suffix
        self.kind = kind
        self.nbytes = encoded.nbytes
        self.encoded = EncodedRows(encoded.nbytes, self._fill, encoded.memory)
        self._inner = encoded
        self._with_checksums = with_checksums
        self.checksums: list[str] = []
        self.seconds = 0.0

    def _fill(self, out: NDArray[np.uint8]) -> None:
        began = perf_counter()
        self._inner.fill(out)
        self._take_checksums(out)
        self.seconds += perf_counter() - began

    def finish(self) -> None:
        """Take the checksums of bytes that a lane has stored as they lay."""
        if self._inner.memory is not None and not self.checksums:
            began = perf_counter()
            self._take_checksums(self._inner.memory)
            self.seconds += perf_counter() - began

    def _take_checksums(self, rows: NDArray[np.uint8]) -> None:
        if self._with_checksums:
            self.checksums = [xxh3_64_hexdigest(row) for row in rows]
