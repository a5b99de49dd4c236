"""What was accepted, what became of it, and who may come in next."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, perf_counter

from lighter_async.errors import ClosedError, QueueFullError, WriteError
from lighter_async.failures import Failures
from lighter_async.interrupts import is_interrupted, run_handlers, waking
from lighter_async.types import Batch, OnError, Result, Unit, Waiter, WriterStats

__all__ = ["Bell", "Ledger", "Room"]


_SECONDS_TO_NOTICE = 0.1

_MUCH = 8 << 20
"""Bytes above which memory that is free again is rather used than more of it, since that is in no cache."""


class _Waiter:
    """A thread that waits for a change of the books."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        """End the wait that is under way, or the next one."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it is awake already

    @property
    def is_awake(self) -> bool:
        """Whether it was woken since it waited last."""
        return not self._lock.locked()

    def wait(self, timeout: float) -> None:
        """Wait until it is woken, or for `timeout` seconds."""
        self._lock.acquire(timeout=timeout)


def _wait(waiter: Waiter, timeout: float) -> None:
    waiter.wait(timeout)


def _wake() -> None:
    """Who waits is woken by the ledger itself."""


class _Turn:
    """A place in the line of those who wait for room. One whose thread runs a signal's handler is passed over."""

    __slots__ = ("is_passed_over",)

    def __init__(self) -> None:
        self.is_passed_over = False


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

    The main thread calls it with signals held back. Those that come while it waits are delivered in between, where the
    lock is free and the books are right: so a handler may raise, and may call the writer.

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
        self._lock = threading.RLock()
        # All below: guarded by _lock.
        self._wait: Callable[[Waiter, float], None] = _wait
        self._wake: Callable[[], None] = _wake
        self._process = os.getpid()
        self._waiters: list[_Waiter] = []
        self._refusal: str | None = None
        self._line: list[_Turn] = []
        self._batches: dict[Batch, int] = {}  # accepted and not done, in order, with their numbers
        self._number = 0
        self._samples = self._bytes = 0  # admitted and not done
        self._peak_samples = self._peak_bytes = 0
        self._accepted = self._written = self._skipped = self._failed = self._dropped = 0
        self._bytes_written = 0
        self._encode_seconds = self._store_seconds = 0.0
        self._waits = 0
        self._waited_seconds = 0.0
        self.failures = Failures()  # not raised yet
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

    def forked(self) -> None:
        """In a forked child, where it is not begun yet: another thread of the parent may have had the lock."""
        self._lock = threading.RLock()
        self._process = os.getpid()

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
        """Wait until there is room, and take it.

        Raises:
            QueueFullError: There was no room for `timeout` seconds.
            WriteError, ClosedError: As `check_open`, also while waiting.
        """
        deadline = None if timeout is None else monotonic() + timeout
        began: float | None = None
        turn = _Turn()
        waiter = _Waiter()
        count, nbytes = room.count, room.nbytes
        with self._lock:
            self._check_open()
            self._line.append(turn)
            self._waiters.append(waiter)
        try:
            while True:
                with self._lock:
                    self._check_open()
                    if self._first_in_line() is turn and self._fits(count, nbytes):
                        self._give(room)
                        return
                    left = None if deadline is None else deadline - monotonic()
                    if left is not None and left <= 0:
                        raise self._full(count, nbytes, timeout)
                    if began is None:
                        began = perf_counter()
                        self._waits += 1
                if self._wait_on(waiter, left):
                    self._pass_over(turn, True)
                    try:
                        self._deliver()
                    finally:
                        self._pass_over(turn, False)
        finally:
            with self._lock:
                self._line.remove(turn)
                self._leave_off(waiter)
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
            if self._first_in_line() is not None or not self._fits(room.count, room.nbytes):
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
                self.failures.add(result.failures)
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
        waiter = _Waiter()
        with self._lock:
            self._waiters.append(waiter)
        try:
            while True:
                with self._lock:
                    left = None if deadline is None else deadline - monotonic()
                    if not self._is_pending(mark) or (left is not None and left <= 0):
                        return self._pending(mark)
                if self._wait_on(waiter, left):
                    self._deliver()
        finally:
            with self._lock:
                self._leave_off(waiter)

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

    # Waiting, without the lock

    def _wait_on(self, waiter: _Waiter, timeout: float | None) -> bool:
        """Wait for a change, for a moment at most; returns whether signals were held back that are to be delivered."""

        def wake() -> None:
            waiter.wake()
            self._wake()

        # In slices: the interpreter overlooks a signal that comes just before its thread begins to wait.
        timeout = _SECONDS_TO_NOTICE if timeout is None else min(timeout, _SECONDS_TO_NOTICE)
        with waking(wake) as held:
            if not held:
                self._wait(waiter, timeout)
        return is_interrupted()

    def _deliver(self) -> None:
        with self._lock:
            self._notify()  # another one waits on at the backend meanwhile
        run_handlers()
        if self._process != os.getpid():
            raise ClosedError(
                f"a signal's handler has forked, and this is the child, where nobody stores to {self._location!r}; "
                "end it in the handler"
            )

    def _pass_over(self, turn: _Turn, passed_over: bool) -> None:
        with self._lock:
            turn.is_passed_over = passed_over
            self._notify()

    # With _lock held

    def _leave_off(self, waiter: _Waiter) -> None:
        """Wait no more. It may be the next one's turn, and somebody has to wait on at the backend in our place."""
        self._waiters.remove(waiter)
        if self._waiters:
            self._notify()

    def _first_in_line(self) -> _Turn | None:
        for turn in self._line:
            if not turn.is_passed_over:
                return turn
        return None

    def _is_pending(self, mark: int | None) -> bool:
        return bool(self._batches) and (mark is None or next(iter(self._batches.values())) <= mark)

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
            failures, more = self.failures.take()
            raise WriteError.of_run(
                failures, written=self._written, nbytes=self._bytes_written, pending=self._pending(None), more=more
            )

    def _fits(self, count: int, nbytes: int) -> bool:
        if not self._samples and not self._bytes:
            return True
        return self._samples + count <= self._queue_size and self._bytes + nbytes <= self._queue_bytes

    def _give(self, room: Room) -> None:
        self._peak_samples = max(self._peak_samples, self._samples + room.count)
        self._peak_bytes = max(self._peak_bytes, self._bytes + room.nbytes)
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
        for waiter in self._waiters:
            waiter.wake()
        self._wake()
        # Under the lock, so that no bell is closed meanwhile: its descriptor's number may be another socket's by then.
        for bell in self._bells:
            bell.ring()
