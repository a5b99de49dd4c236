"""What helpers are told of each batch, in memory that they share."""

from __future__ import annotations

from lighter_async.staging import SharedMemory
from lighter_async.staging.slots import Slot, SlotPool, size_class
from lighter_async.types import Batch
from lighter_async.workers.process.pickled_messages import pickled, pickled_names, pickled_values
from lighter_async.workers.worker_job import Job

__all__ = ["Outbox"]

_BYTES_KEPT = 8 << 20  # of memory, for reuse


class Outbox:
    """Pickles what helpers are told, and puts it into slots.

    Any thread may pickle; the backend's lock guards the slots.

    Raises:
        TypeError: The job cannot be pickled.
    """

    def __init__(self, job: Job, memory: SharedMemory) -> None:
        self._job = job
        self._slots = SlotPool(_BYTES_KEPT, memory)
        # Of the last batch. Threads share it without a lock, since all that a race costs is a message made anew.
        self._rows: tuple[object, bytes] = None, b""
        self.pickled_job()

    def pickled_job(self) -> bytes:
        job = self._job
        return pickled(job, f"writer {job.writer.name!r} or its target {type(job.session.target).__name__}")

    def prepare(self, batch: Batch) -> None:
        """Pickle what helpers are told of a batch.

        Raises:
            TypeError: A value cannot be pickled.
        """
        names = pickled_names(batch.names, batch.origin)
        batch.message = b"".join([len(names).to_bytes(8, "little"), names, self._pickled_values(batch)])

    def _pickled_values(self, batch: Batch) -> bytes:
        staged = batch.staged
        rows = staged.rows or staged.columns
        # A batch of rows is mostly like the last one but for its names. Not the first, which may have come before
        # there was a template for it.
        known, values = self._rows
        if values and known is rows:
            return values
        if not staged.is_rows:
            return pickled_values(batch, self._job)
        if values and known == rows:
            return values
        values = pickled_values(batch, self._job)
        self._rows = rows, values if known == rows else b""
        return values

    def put(self, batch: Batch) -> Slot:
        """Move what was pickled into a slot."""
        slot = self._slots.acquire(size_class(len(batch.message), _BYTES_KEPT), pinned=False)
        slot.memory.data[: len(batch.message)] = batch.message
        batch.message = b""
        return slot

    def release(self, slot: Slot) -> None:
        self._slots.release(slot)

    def close(self) -> None:
        self._slots.close()
