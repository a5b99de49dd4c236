"""The books of one writer, under one lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, perf_counter

from lighter_async.errors import ClosedError
from lighter_async.ledger.accounts import Accounts
from lighter_async.ledger.admission import Admission, Reservation, Turn
from lighter_async.ledger.waiting import Bell, Changes
from lighter_async.types import Batch, OnError, Result, Unit, Waiter, WriterStats

__all__ = ["Ledger"]


class Ledger:
    """Admission, accounts and waiting of one writer, under one lock that is never held while a user's code runs.

    The main thread calls it with signals held back. Those that come while it waits are delivered in between, where the
    lock is free and the books are right: so a handler may raise, and may call the writer.

    A batch is *admitted* once its space is reserved. It is *accepted* once it stands in a worker's queue: from then on
    the ledger waits for it and reports what becomes of it.

    Args:
        queue_size: Samples that may be admitted at once.
        queue_bytes: Bytes that may be admitted at once. A batch larger than either is admitted by itself.
        max_workers: Only reported.
        location: Where the samples go, for messages.
        on_error: Whether a sample that failed stops the run, even if its value is kept.
        release: Gives a batch's memory back once its last sample is done.

    Attributes:
        is_crowded: Whether so much is in flight that finished batches should be collected before a reservation.
    """

    def __init__(
        self,
        *,
        queue_size: int,
        queue_bytes: int,
        max_workers: int,
        location: str,
        release: Callable[[Batch], None],
        on_error: OnError = "stop",
    ) -> None:
        self._max_workers = max_workers
        self._location = location
        self._release = release
        self._lock = threading.RLock()
        # All below: guarded by _lock.
        self._admission = Admission(queue_size, queue_bytes)
        self._accounts = Accounts(on_error)
        self._changes = Changes(location)
        self._refusal: str | None = None
        self._on_wait: Callable[[float, float], None] | None = None
        self.is_crowded = self._admission.is_crowded

    # Life

    def open(
        self,
        wait: Callable[[Waiter, float], None],
        wake: Callable[[], None],
        on_wait: Callable[[float, float], None] | None = None,
    ) -> None:
        """Begin; callers wait at a backend from now on.

        Args:
            wait: How it waits for changes.
            wake: Ends such a wait.
            on_wait: Told now and then while callers wait for space how long they have waited so far, and how long the
                writer has been open, in seconds. Called with no lock held.
        """
        with self._lock:
            self._changes.open(wait, wake)
            self._on_wait = on_wait
            self._accounts.open()

    def refuse(self, reason: str) -> None:
        """Accept nothing from now on, and wake those who wait for space."""
        with self._lock:
            self._refusal = self._refusal or reason
            self._changes.notify()

    def close(self) -> None:
        """End the time that `stats` reports."""
        with self._lock:
            self._accounts.close()

    def forked(self) -> None:
        """In a forked child, before the writer was started: another thread of the parent may have had the lock."""
        self._lock = threading.RLock()
        self._changes.forked()

    # In

    def check_open(self) -> None:
        """
        Raises:
            WriteError: Samples failed, and this was not raised yet.
            ClosedError: No more samples are accepted.
        """
        with self._lock:
            self._check_open()

    def try_reserve(self, reservation: Reservation) -> bool:
        """Reserve at once, if there is space and nobody waits for it.

        Raises:
            WriteError, ClosedError: As `check_open`.
        """
        with self._lock:
            # Looked at here, and in `accept`, since each call is some microseconds that the loop waits.
            if self._refusal is not None or self._accounts.first_failure is not None:
                self._check_open()
            return self._admission.try_reserve(reservation)

    def reserve(self, reservation: Reservation, timeout: float | None) -> None:
        """Wait until there is space, and reserve it.

        Raises:
            QueueFullError: There was no space for `timeout` seconds.
            WriteError, ClosedError: As `check_open`, also while waiting.
        """
        admission, changes = self._admission, self._changes
        deadline = None if timeout is None else monotonic() + timeout
        began: float | None = None
        turn = Turn()
        with self._lock:
            self._check_open()
            admission.line.append(turn)
            waiter = changes.add_waiter()
        try:
            while True:
                with self._lock:
                    self._check_open()
                    if admission.try_reserve(reservation, turn):
                        return
                    left = None if deadline is None else deadline - monotonic()
                    if left is not None and left <= 0:
                        raise admission.full(reservation, timeout)
                    if began is None:
                        began = perf_counter()
                        admission.waits += 1
                is_interrupted = changes.wait_on(waiter, left)
                self._tell_of_wait(perf_counter() - began)
                if is_interrupted:
                    # A handler may take long, or hand over samples itself: nobody waits behind it meanwhile.
                    self._pass_over(turn, True)
                    try:
                        self._run_handlers()
                    finally:
                        self._pass_over(turn, False)
        finally:
            with self._lock:
                admission.line.remove(turn)
                changes.remove_waiter(waiter)
                if began is not None:
                    admission.waited_seconds += perf_counter() - began

    def withdraw(self, reservation: Reservation) -> None:
        """Give a reservation back, if it was taken, of a batch that was not accepted."""
        with self._lock:
            if self._admission.withdraw(reservation):
                self._changes.notify()

    def accept(self, batch: Batch) -> None:
        """Count an admitted batch as accepted.

        Raises:
            WriteError, ClosedError: As `check_open`; it stays admitted only.
        """
        with self._lock:
            if self._refusal is not None or self._accounts.first_failure is not None:
                self._check_open()
            self._accounts.accept(batch)

    def reject(self, batch: Batch) -> None:
        """Undo `accept` of a batch that no worker has seen."""
        with self._lock:
            self._accounts.reject(batch)

    # Out

    def done(self, batch: Batch, result: Result) -> None:
        """Count what became of samples of a batch."""
        count = result.samples
        with self._lock:
            self._accounts.count(result)
            batch.left -= count
            is_last = batch.left == 0
        self._leave(batch, count, is_last)

    def drop(self, units: Sequence[Unit]) -> int:
        """Count units that were taken from the queue unwritten; returns how many samples they had."""
        for unit in units:
            batch, count = unit.batch, len(unit)
            with self._lock:
                self._accounts.dropped += count
                batch.left -= count
                is_last = batch.left == 0
            self._leave(batch, count, is_last)
        return sum(len(unit) for unit in units)

    def _leave(self, batch: Batch, count: int, is_last: bool) -> None:
        if is_last:
            # Outside the lock, since it may wait for a device; before its space is given back, since the next batch
            # takes the memory that comes back here.
            self._release(batch)
        with self._lock:
            self._admission.give_back(count, batch.nbytes if is_last else 0)
            if is_last:
                self._accounts.forget(batch)
            self._changes.notify()

    # Waiting for what is out

    def mark(self) -> int:
        """Where the books stand: everything accepted until now has a number up to this one."""
        with self._lock:
            return self._accounts.mark

    def pending(self, mark: int | None = None) -> int:
        """Samples accepted, up to a mark, that are not done."""
        with self._lock:
            return self._accounts.pending(mark)

    def wait_done(self, mark: int | None, timeout: float | None) -> int:
        """Wait until everything accepted, up to a mark, is done, or for `timeout` seconds; returns what is pending."""
        deadline = None if timeout is None else monotonic() + timeout
        with self._lock:
            waiter = self._changes.add_waiter()
        try:
            while True:
                with self._lock:
                    left = None if deadline is None else deadline - monotonic()
                    if not self._accounts.is_pending(mark) or (left is not None and left <= 0):
                        return self._accounts.pending(mark)
                if self._changes.wait_on(waiter, left):
                    self._run_handlers()
        finally:
            with self._lock:
                self._changes.remove_waiter(waiter)

    @contextmanager
    def bell(self) -> Iterator[Bell]:
        """A bell that rings at every change while the context is open."""
        with self._lock:
            bell = self._changes.add_bell()
        try:
            yield bell
        finally:
            with self._lock:
                self._changes.remove_bell(bell)
            bell.close()

    def count_wait(self, seconds: float) -> None:
        """Count a wait for space that happened elsewhere, such as on an event loop."""
        with self._lock:
            self._admission.waits += 1
            self._admission.waited_seconds += seconds
        self._tell_of_wait(0.0)

    # Reports

    @property
    def failed(self) -> bool:
        """Whether a sample has failed, so that no more are taken."""
        return self._accounts.first_failure is not None

    @property
    def unraised(self) -> Sequence[str]:
        """The failures that were not raised yet, as text: one list, which changes with them."""
        return self._accounts.unraised.lines

    def raise_failures(self) -> None:
        """
        Raises:
            WriteError: All failures that were not raised yet, together.
        """
        with self._lock:
            self._accounts.raise_failures()

    def stats(self) -> WriterStats:
        with self._lock:
            admission, accounts, totals = self._admission, self._accounts, self._accounts.totals
            return WriterStats(
                accepted=accounts.accepted,
                written=totals.written,
                skipped=totals.skipped,
                failed=accounts.failed,
                dropped=accounts.dropped,
                pending=accounts.pending(),
                peak_pending=admission.peak_samples,
                pending_bytes=admission.nbytes,
                peak_pending_bytes=admission.peak_bytes,
                bytes_written=totals.bytes_written,
                waits=admission.waits,
                waited_seconds=admission.waited_seconds,
                encode_seconds=totals.encode_seconds,
                store_seconds=totals.store_seconds,
                open_seconds=accounts.open_seconds,
                max_workers=self._max_workers,
                queue_size=admission.queue_size,
                queue_bytes=admission.queue_bytes,
            )

    # While waiting, without the lock

    def _tell_of_wait(self, seconds: float) -> None:
        """Tell how long callers have waited, with a wait under way."""
        if self._on_wait is not None:
            self._on_wait(self._admission.waited_seconds + seconds, self._accounts.open_seconds)

    def _run_handlers(self) -> None:
        with self._lock:
            self._changes.notify()  # so that another one waits at the backend meanwhile
        self._changes.run_handlers()

    def _pass_over(self, turn: Turn, passed_over: bool) -> None:
        with self._lock:
            turn.is_passed_over = passed_over
            self._changes.notify()

    # With the lock held

    def _check_open(self) -> None:
        first = self._accounts.first_failure
        if first is not None:
            self._accounts.raise_failures()
        if self._refusal is not None:
            raise ClosedError(self._refusal)
        if first is not None:
            raise ClosedError(
                f"the writer for {self._location!r} takes no more samples, because one was not written "
                f"({first}); what was accepted before is still stored"
            ) from first
