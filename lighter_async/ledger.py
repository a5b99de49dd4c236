"""What was accepted, what became of it, and who may come in next."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, perf_counter

from lighter_async.errors import ClosedError, QueueFullError, WriteError, describe
from lighter_async.interrupts import Waiter, is_interrupted, run_handlers
from lighter_async.types import Batch, OnError, Result, Unit, WriterStats

__all__ = ["Bell", "Ledger", "Room"]


_MUCH = 8 << 20
"""Bytes above which memory that is free again is rather used than more of it, since that is in no cache."""


_SECONDS_TO_NOTICE = 1.0


def _wait(waiter: Waiter, timeout: float) -> None:
    waiter.wait(timeout)


def _wake() -> None:
    """Whoever waits is woken by a change."""


class Bell:
    """Rings when the ledger changes: a socket that becomes readable, for event loops."""

    def __init__(self) -> None:
        self.socket, self._ringer = socket.socketpair()
        self.socket.setblocking(False)
        self._ringer.setblocking(False)

    def ring(self) -> None:
        try:
            self._ringer.send(b"!")
        except OSError:
            pass  # it has been rung so often that no more fits, or nobody listens any more

    def silence(self) -> None:
        """Be quiet until the next ring."""
        try:
            while self.socket.recv(4096):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        self.socket.close()
        self._ringer.close()


class Room:
    """Room for `count` samples of `nbytes` in all, and whether it is `taken`; guarded by the ledger's lock."""

    __slots__ = ("count", "nbytes", "taken")

    def __init__(self, count: int, nbytes: int) -> None:
        self.count = count
        self.nbytes = nbytes
        self.taken = False


class Ledger:
    """The books of one writer, under one lock that is never held while a user's code runs.

    A batch is *admitted* when its samples and bytes fit beside what is queued or being written; callers that wait for
    that come in in the order in which they came. It is *accepted* once it stands in a worker's queue: from then on the
    ledger waits for it and reports what becomes of it. So ``accepted = written + skipped + failed + dropped + pending``
    at any time.

    Args:
        queue_size: Samples that may be admitted at once.
        queue_bytes: Bytes that may be admitted at once. A batch above either bound comes in alone.
        max_workers: Only reported.
        location: Where the samples go, for messages.
        on_error: Whether a sample that failed stops the run, even if its value is kept.
        release: Gives a batch's memory back once its last sample is done.
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
        self._queue_size = queue_size
        self._queue_bytes = queue_bytes
        self._max_workers = max_workers
        self._location = location
        self._on_error = on_error
        self._release = release
        # In the main thread it is held in critical sections alone (`uninterrupted`), so that no signal's handler finds
        # it held there, or what it guards half changed. An RLock, since the collector may call us in the middle.
        self._lock = threading.RLock()
        # All below: guarded by _lock.
        self._waiters: list[Waiter] = []
        self._wait: Callable[[Waiter, float], None] = _wait
        self._wake: Callable[[], None] = _wake
        self._refusal: str | None = None
        self._line: deque[object] = deque()
        self._batches: dict[Batch, int] = {}  # accepted and not done, in order, with their numbers
        self._number = 0
        self._samples = self._bytes = 0  # admitted and not done
        self._peak_samples = self._peak_bytes = 0
        self._accepted = self._written = self._skipped = self._failed = self._dropped = 0
        self._bytes_written = 0
        self._encode_seconds = self._store_seconds = 0.0
        self._waits = 0
        self._waited_seconds = 0.0
        self.failures: list[WriteError] = []  # not raised yet
        # The same as text, for when the writer is collected: the errors' tracebacks refer to it, so whoever holds them
        # until then keeps it from being collected.
        self.untold: list[str] = []
        self._first_failure: WriteError | None = None
        self._bells: tuple[Bell, ...] = ()
        self._opened: float | None = None
        self._closed: float | None = None

    # Life

    def open(self, wait: Callable[[Waiter, float], None], wake: Callable[[], None]) -> None:
        """Begin; `wait` is how the backend in use waits for changes, and `wake` ends such a wait."""
        with self._lock:
            self._wait = wait
            self._wake = wake
            self._opened = perf_counter()

    def refuse(self, reason: str) -> None:
        """Accept nothing from now on, and wake those who wait for room."""
        with self._lock:
            self._refusal = self._refusal or reason
            self._notify()

    def close(self) -> None:
        with self._lock:
            self._closed = perf_counter()

    # In

    def check_open(self) -> None:
        """
        Raises:
            WriteError: Samples failed, and this was not raised yet.
            ClosedError: No more samples are accepted.
        """
        with self._lock:
            self._check_open()

    def admit(self, room: Room, timeout: float | None) -> None:
        """Wait until there is room, and take it. Handlers of signals run while it waits, and may raise.

        Raises:
            QueueFullError: There was no room for `timeout` seconds.
            WriteError, ClosedError: As `check_open`, also while waiting.
        """
        deadline = None if timeout is None else monotonic() + timeout
        began: float | None = None
        turn = object()
        count, nbytes = room.count, room.nbytes
        with self._lock:
            try:
                self._line.append(turn)
                self._check_open()
                while self._line[0] is not turn or not self._fits(count, nbytes):
                    left = None if deadline is None else deadline - monotonic()
                    if left is not None and left <= 0:
                        raise self._full(count, nbytes, timeout)
                    if began is None:
                        began = perf_counter()
                        self._waits += 1
                    self._wait_for_change(left)
                    self._check_open()
                self._give(room)
            finally:
                if turn in self._line:
                    self._line.remove(turn)
                if self._line:
                    self._notify()  # it may be the next one's turn
                if began is not None:
                    self._waited_seconds += perf_counter() - began

    def is_crowded(self, room: Room) -> bool:
        """Whether so much is admitted that it is time to look whether some of it is done."""
        samples, nbytes = self._samples + room.count, self._bytes + room.nbytes
        return 2 * samples > self._queue_size or nbytes > min(_MUCH, self._queue_bytes) or bool(self._line)

    def take(self, room: Room) -> bool:
        """Take room at once, if there is any and nobody waits for it.

        Raises:
            WriteError, ClosedError: As `check_open`.
        """
        with self._lock:
            self._check_open()
            if self._line or not self._fits(room.count, room.nbytes):
                return False
            self._give(room)
            return True

    def withdraw(self, room: Room) -> None:
        """Give the room back, if it was taken, of a batch that was not accepted."""
        with self._lock:
            if not room.taken:
                return
            self._samples -= room.count
            self._bytes -= room.nbytes
            room.taken = False
            self._notify()

    def accept(self, batch: Batch) -> None:
        """Take an admitted batch into the books.

        Raises:
            WriteError, ClosedError: As `check_open`; it stays admitted only.
        """
        with self._lock:
            self._check_open()
            self._number += 1
            self._batches[batch] = self._number
            self._accepted += batch.left

    def reject(self, batch: Batch) -> None:
        """Take a batch out of the books again that no worker has seen."""
        with self._lock:
            if self._batches.pop(batch, None) is not None:
                self._accepted -= batch.left

    # Out

    def done(self, batch: Batch, result: Result) -> None:
        """Book what became of samples of a batch."""
        count = result.samples
        with self._lock:
            self._written += result.written
            self._skipped += result.skipped
            self._failed += len(result.failures)
            self._bytes_written += result.bytes_written
            self._encode_seconds += result.encode_seconds
            self._store_seconds += result.store_seconds
            if result.failures:
                stopping = [one for one in result.failures if self._on_error == "stop" or one.kept is None]
                self._first_failure = self._first_failure or next(iter(stopping), None)
                self.failures += result.failures
                self.untold += [describe(failure) for failure in result.failures]
            last = self._took_from(batch, count)
        self._leave(batch, count, last)

    def drop(self, units: Sequence[Unit]) -> int:
        """Book units that were taken from the queue unwritten; returns how many samples they had."""
        for unit in units:
            with self._lock:
                self._dropped += len(unit)
                last = self._took_from(unit.batch, len(unit))
            self._leave(unit.batch, len(unit), last)
        return sum(len(unit) for unit in units)

    def _took_from(self, batch: Batch, count: int) -> bool:
        batch.left -= count
        return batch.left == 0

    def _leave(self, batch: Batch, count: int, last: bool) -> None:
        if last:
            # Outside the lock, since it may wait for a device; before its room is given away, since the next batch
            # takes the memory that comes back here.
            self._release(batch)
        with self._lock:
            self._samples -= count
            if last:
                self._bytes -= batch.nbytes
                del self._batches[batch]
            self._notify()

    # Waiting for what is out

    def mark(self) -> int:
        """Where the books stand: everything accepted until now has a number up to this one."""
        with self._lock:
            return self._number

    def pending(self, mark: int | None = None) -> int:
        """Samples accepted, up to a mark, that are not done."""
        with self._lock:
            return self._pending(mark)

    def wait_done(self, mark: int | None, timeout: float | None) -> int:
        """Wait until everything accepted, up to a mark, is done, or for `timeout` seconds; returns what is pending."""
        deadline = None if timeout is None else monotonic() + timeout
        with self._lock:
            while self._batches and (mark is None or next(iter(self._batches.values())) <= mark):
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    break
                self._wait_for_change(left)
            return self._pending(mark)

    @contextmanager
    def bell(self) -> Iterator[Bell]:
        """A bell that rings at every change while the context is open."""
        bell = Bell()
        with self._lock:
            self._bells += (bell,)
        try:
            yield bell
        finally:
            with self._lock:
                self._bells = tuple(other for other in self._bells if other is not bell)
            bell.close()

    def count_wait(self, seconds: float) -> None:
        """Book a wait for room that happened elsewhere, such as on an event loop."""
        with self._lock:
            self._waits += 1
            self._waited_seconds += seconds

    # Reports

    @property
    def failed(self) -> bool:
        """Whether a sample has failed."""
        return self._first_failure is not None

    def raise_failures(self) -> None:
        """
        Raises:
            WriteError: All failures that were not raised yet, together.
        """
        with self._lock:
            self._raise_failures()

    def stats(self) -> WriterStats:
        with self._lock:
            end = self._closed or perf_counter()
            return WriterStats(
                accepted=self._accepted,
                written=self._written,
                skipped=self._skipped,
                failed=self._failed,
                dropped=self._dropped,
                pending=self._pending(None),
                peak_pending=self._peak_samples,
                pending_bytes=self._bytes,
                peak_pending_bytes=self._peak_bytes,
                bytes_written=self._bytes_written,
                waits=self._waits,
                waited_seconds=self._waited_seconds,
                encode_seconds=self._encode_seconds,
                store_seconds=self._store_seconds,
                open_seconds=0.0 if self._opened is None else end - self._opened,
                max_workers=self._max_workers,
                queue_size=self._queue_size,
                queue_bytes=self._queue_bytes,
            )

    # With _lock held

    def _wait_for_change(self, timeout: float | None) -> None:
        """Let go of the lock, wait, run what handlers were held back, and take the lock again."""
        waiter = Waiter()
        self._waiters.append(waiter)
        self._lock.release()
        try:
            self._wait(waiter, _SECONDS_TO_NOTICE if timeout is None else min(timeout, _SECONDS_TO_NOTICE))
            if is_interrupted():
                run_handlers()
        finally:
            self._lock.acquire()
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            # Whoever waits for what was done by way of us may have to look for it in our place.
            if self._waiters:
                self._waiters.pop(0).wake()

    def _check_open(self) -> None:
        if self._first_failure is not None:
            self._raise_failures()
        if self._refusal is not None:
            raise ClosedError(self._refusal)
        if self._first_failure is not None:
            raise ClosedError(
                f"the writer for {self._location!r} takes no more samples, because one was not written "
                f"({self._first_failure}); what was accepted before is still stored"
            ) from self._first_failure

    def _raise_failures(self) -> None:
        if self.failures:
            failures = self.failures.copy()
            self.failures.clear()
            self.untold.clear()
            raise WriteError.of_run(
                failures, written=self._written, nbytes=self._bytes_written, pending=self._pending(None)
            )

    def _fits(self, count: int, nbytes: int) -> bool:
        if not self._samples and not self._bytes:
            return True
        return self._samples + count <= self._queue_size and self._bytes + nbytes <= self._queue_bytes

    def _give(self, room: Room) -> None:
        self._peak_samples = max(self._peak_samples, self._samples + room.count)
        self._peak_bytes = max(self._peak_bytes, self._bytes + room.nbytes)
        # No calls between these, so that no signal comes in between.
        self._samples += room.count
        self._bytes += room.nbytes
        room.taken = True

    def _full(self, count: int, nbytes: int, timeout: float | None) -> QueueFullError:
        waited = f" for {timeout:g} s" if timeout else ""
        return QueueFullError(
            f"no room{waited} for {count} more samples of {nbytes / 1e6:.1f} MB: {self._samples} of {self._queue_size} "
            f"samples and {self._bytes / 1e6:.1f} of {self._queue_bytes / 1e6:.1f} MB are queued or being written; "
            "wait with submit(), or raise queue_size or queue_bytes"
        )

    def _pending(self, mark: int | None) -> int:
        if mark is None:
            return self._accepted - self._written - self._skipped - self._failed - self._dropped
        return sum(batch.left for batch, number in self._batches.items() if number <= mark)

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.wake()
        self._wake()
        # Under the lock, so that no bell is closed meanwhile: its descriptor's number may be another socket's by then.
        for bell in self._bells:
            bell.ring()
