"""What is to be done, and how much of it the helpers' queue has."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lighter_async.errors import WriteError
from lighter_async.staging.slots import Slot
from lighter_async.types import Batch, Result, Unit
from lighter_async.workers.process.outbox import Outbox
from lighter_async.workers.process.shared_queue_words import Outcome
from lighter_async.workers.process.transport import Transport
from lighter_async.workers.worker_job import Job
from lighter_async.workers.writing import fail_unit

__all__ = ["Finished", "Schedule", "Sent"]

_LEAST_UNITS = 1024  # that the queue has places for

Finished = list[tuple[Batch, Result]]
"""What is to be told of batches, once no lock is held."""


@dataclass(slots=True, eq=False)
class Sent:
    """A batch that helpers have, or are about to have.

    Attributes:
        message: The slot that says what it is.
        left: Samples that are not done.
    """

    batch: Batch
    serial: int
    message: Slot
    left: int


@dataclass(slots=True, eq=False)
class _Record:
    """A range of a batch in the queue; `left` samples of it are not done. `redelivered`: a helper that died had it."""

    sent: Sent
    left: int
    redelivered: bool


class Schedule:
    """Ranges of batches on their way: held back here, or in records of the queue.

    A range is held back while its copy from an accelerator is still under way, since a helper cannot wait for that,
    and while the queue has no room. The queue has room for every unit that may be in flight, so that helpers never wait
    for this process to read results.

    The backend's lock guards it.

    Args:
        job: What is done with a unit.
        transport: Has the queue.
        outbox: Has the batches' messages.
        capacity: Units that may be in flight at once.
        records_in_all: The queue's size.

    Attributes:
        held: What is held back, in order.
        results: How many results of the queue were read.
    """

    def __init__(self, job: Job, transport: Transport, outbox: Outbox, capacity: int, records_in_all: int) -> None:
        self._job = job
        self._transport = transport
        self._outbox = outbox
        self._capacity = capacity
        self._records_in_all = records_in_all
        self.held: deque[tuple[Sent, int, int, int]] = deque()  # with start, stop and samples a unit
        self._requeued: deque[tuple[Sent, int, int]] = deque()  # of dead helpers, for which the queue has no room now
        self._records: dict[int, _Record] = {}
        self._free_records: list[int] = []
        self._used_records = 0  # the first that was never used
        self._units = 0  # in the queue
        self._serial = 0
        self.results = 0

    @staticmethod
    def capacity_for(queue_size: int) -> int:
        """Units that the queue should have room for: each has a sample at least."""
        return max(queue_size, _LEAST_UNITS)

    @property
    def is_empty(self) -> bool:
        """Whether helpers have nothing in their hands, nor in their queue."""
        return not (self._records or self._requeued or self.held)

    # In

    def add(self, batch: Batch, start: int, stop: int, per: int) -> None:
        """Take a range of a batch in, `per` samples a unit; `send` puts it into the queue."""
        self._serial += 1
        sent = Sent(batch, self._serial, self._outbox.put(batch), stop - start)
        self.held.append((sent, start, stop, max(per, -(-(stop - start) // self._capacity))))

    def send(self) -> list[tuple[Sent, int, int, Exception]]:
        """Put into the queue what has arrived on the host, in order, as far as the queue has room.

        Returns:
            Ranges whose copy from the device has failed, and with what: they are not held any more.
        """
        failed: list[tuple[Sent, int, int, Exception]] = []
        if self._requeued:
            self.send_requeued()
        while self.held:
            sent, start, stop, per = self.held[0]
            if self._requeued or not self._has_room(start, stop, per):
                break
            ready = sent.batch.staged.ready
            try:
                if ready is not None and not ready.query():
                    break
            except Exception as error:  # the device failed, and the copy with it
                self.held.popleft()
                failed.append((sent, start, stop, error))
                continue
            self._append(sent, start, stop, per)
            self.held.popleft()
        return failed

    def requeue(self, sent: Sent, start: int, stop: int) -> None:
        """Take in again what a dead helper had in its hand."""
        if start < stop:
            self._requeued.append((sent, start, stop))

    def send_requeued(self) -> None:
        """Put into the queue what dead helpers had in their hands, as far as the queue has room for it."""
        while self._requeued:
            sent, start, stop = self._requeued[0]
            if not self._has_room(start, stop, stop - start):
                break
            self._requeued.popleft()
            self._append(sent, start, stop, stop - start, redelivered=True)

    def _has_room(self, start: int, stop: int, per: int) -> bool:
        """Whether the queue has room for a range, `per` samples a unit; an empty queue has for any."""
        if not self._free_records and self._used_records >= self._records_in_all:
            return False
        return not self._records or self._units - (-(stop - start) // per) <= self._records_in_all

    def _append(self, sent: Sent, start: int, stop: int, per: int, *, redelivered: bool = False) -> None:
        if self._free_records:
            number = self._free_records.pop()
        else:
            number = self._used_records
            self._used_records += 1
        slot = sent.batch.staged.slot
        self._records[number] = _Record(sent, stop - start, redelivered)
        self._units -= -(stop - start) // per
        self._transport.queue.append(
            number,
            start,
            stop,
            per=per,
            serial=sent.serial,
            slot=(0, 0) if slot is None else (slot.offset, slot.memory.nbytes),
            message=(sent.message.offset, sent.message.memory.nbytes),
            redelivered=redelivered,
        )
        self._transport.ring_sleepers()

    # Out

    def new_results(self) -> Iterator[Outcome]:
        """The results that helpers have entered since the last call."""
        for outcome in self._transport.queue.outcomes(self.results):
            self.results += 1
            self._units -= 1
            yield outcome

    def take_hand(self, hand: Outcome) -> Sent:
        """Take a unit, none of which is done, out of a dead helper's hand; returns its batch."""
        self._units -= 1
        sent = self.batch_of(hand)
        self._leave(hand.record, hand.stop - hand.start)
        return sent

    def take_done_hand(self, hand: Outcome, failures: Sequence[WriteError], finished: Finished) -> None:
        """Count a unit that is done in a dead helper's hand."""
        self._units -= 1
        self.count(hand, failures, finished)

    def batch_of(self, outcome: Outcome) -> Sent:
        return self._records[outcome.record].sent

    def count(self, outcome: Outcome, failures: Sequence[WriteError], finished: Finished) -> None:
        """Count what became of a unit."""
        sent = self.batch_of(outcome)
        # The units of a batch mostly come together, and are told as one.
        if not finished or finished[-1][0] is not sent.batch:
            finished.append((sent.batch, Result()))
        result = finished[-1][1]
        result.written += outcome.written
        result.skipped += outcome.skipped
        result.failures += failures
        result.bytes_written += outcome.bytes_written
        result.encode_seconds += outcome.encode_ns / 1e9
        result.store_seconds += outcome.store_ns / 1e9
        self._leave(outcome.record, outcome.stop - outcome.start)
        self.forget(sent, outcome.stop - outcome.start)

    def fail(
        self, sent: Sent, start: int, stop: int, error: BaseException, finished: Finished, attempts: int = 1
    ) -> None:
        """Fail a range that no helper has."""
        finished.append((sent.batch, fail_unit(self._job, Unit(sent.batch, start, stop), error, attempts)))
        self.forget(sent, stop - start)

    def take_back(self, *, hurry: bool = True) -> list[Unit]:
        """Take out everything that no helper has in its hand.

        Args:
            hurry: Whether helpers are to wait for nothing any more.
        """
        taken: list[Unit] = []
        for number, start, stop in self._transport.queue.withdraw(hurry=hurry):
            record = self._records[number]
            self._leave(number, stop - start)
            self._take(taken, record.sent, start, stop, record.redelivered)
        for sent, start, stop in self._requeued:
            self._take(taken, sent, start, stop, True)
        for sent, start, stop, _ in self.held:
            self._take(taken, sent, start, stop, False)
        self._requeued.clear()
        self.held.clear()
        return taken

    def _take(self, taken: list[Unit], sent: Sent, start: int, stop: int, redelivered: bool) -> None:
        taken.append(Unit(sent.batch, start, stop, redelivered))
        self.forget(sent, stop - start)

    def _leave(self, number: int, samples: int) -> None:
        """So many samples of a record are done, or in another record from now on."""
        record = self._records[number]
        record.left -= samples
        if not record.left:
            del self._records[number]
            self._free_records.append(number)

    def forget(self, sent: Sent, samples: int) -> None:
        """So many samples of a batch are no affair of the helpers any more."""
        sent.left -= samples
        if not sent.left:
            self._outbox.release(sent.message)
