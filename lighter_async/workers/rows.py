"""A worker's way through a unit whose samples are alike: all of them are encoded, stored and recorded at once."""

from __future__ import annotations

from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_hexdigest

from lighter_async.block import EncodedRows
from lighter_async.manifest import Stored, StoredRows
from lighter_async.names import with_suffixes
from lighter_async.targets import Lane, PlacedRows, RowItems
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
    if unit.redelivered or len(outputs) != 1 or not outputs[0].encoder.takes_rows:
        return None
    (output,) = outputs
    work.begin(unit.start)
    began = perf_counter()
    try:
        rows = ready(unit).rows_between(unit.start, unit.stop)
        encoded = None if rows is None else output.encoder.encode_rows(rows)
        if rows is None or encoded is None:
            return None
        names = unit.batch.names[unit.start : unit.stop]
        filling = _Filling(encoded, with_checksums=work.job.session.log is not None)
        items = RowItems(names, output.suffix, EncodedRows(encoded.nbytes, filling.fill, encoded.memory))
        if work.job.takes_arrays:
            if (origin := unit.batch.origin) is None or origin.indices is None:
                return None
            indices = origin.indices[unit.start : unit.stop]
            items = RowItems(items.names, items.suffix, items.encoded, indices, origin.loader, (rows.dtype, rows.shape))
        placed = lane.put_rows(items, lambda number: work.begin(unit.start + number))
    except Exception:
        return None
    if placed is None:
        return None
    work.job.patience.note_space_available()
    filling.finish()
    work.result.encode_seconds += filling.seconds
    work.result.store_seconds += perf_counter() - began - filling.seconds
    if not isinstance(placed, PlacedRows):
        files = with_suffixes(names, output.suffix)
        checksums = filling.checksums or [""] * len(files)
        work.take_outcomes(
            lane,
            [Stored(unit.start + number, file, encoded.nbytes, checksums[number]) for number, file in enumerate(files)],
            placed,
        )
        return work.settle()
    stored = StoredRows(
        unit.start, encoded.nbytes, "".join(filling.checksums), placed.object, placed.offset, placed.stride
    )
    return work.record_rows(stored, names, (rows.dtype, rows.shape))


class _Filling:
    """Encodes rows where a lane wants them, and takes their checksums while they are in the cache."""

    def __init__(self, encoded: EncodedRows, *, with_checksums: bool) -> None:
        self._encoded = encoded
        self._with_checksums = with_checksums
        self.checksums: list[str] = []
        self.seconds = 0.0

    def fill(self, out: NDArray[np.uint8]) -> None:
        began = perf_counter()
        self._encoded.fill(out)
        self._take_checksums(out)
        self.seconds += perf_counter() - began

    def finish(self) -> None:
        """Take the checksums of bytes that a lane has stored as they lay."""
        if self._encoded.memory is not None and not self.checksums:
            began = perf_counter()
            self._take_checksums(self._encoded.memory)
            self.seconds += perf_counter() - began

    def _take_checksums(self, rows: NDArray[np.uint8]) -> None:
        if self._with_checksums:
            self.checksums = [xxh3_64_hexdigest(row) for row in rows]
