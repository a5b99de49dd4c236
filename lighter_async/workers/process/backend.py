"""Workers that are processes of their own, seen from the process that they work for."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, monotonic_ns
from typing import Literal

from lighter_async.errors import WorkerDiedError, WriteError, WriteTimeoutError
from lighter_async.forks import Descriptors, no_fork
from lighter_async.interrupts import run_handlers, uninterrupted
from lighter_async.staging import SharedMemory
from lighter_async.staging.layout import Leaf
from lighter_async.staging.memory import Slot, SlotPool, size_class
from lighter_async.targets import descriptors_of
from lighter_async.types import Batch, Result, Unit, Waiter
from lighter_async.workers.job import Job
from lighter_async.workers.process.arrivals import Arrivals
from lighter_async.workers.process.bells import make_bell, ring, silence
from lighter_async.workers.process.book import BROKEN, STARTING, Book, Outcome
from lighter_async.workers.process.helper import Setting
from lighter_async.workers.process.interpreter import check_is_no_helper, folder_and_path, program
from lighter_async.workers.process.launch import Process, check_descriptors, launch, needed, standard_descriptors
from lighter_async.workers.process.letter import open_failure, seal, seal_names, seal_values

__all__ = ["ProcessBackend"]

_SECONDS_TO_NOTICE = 0.05
_SECONDS_TO_END = 30.0  # for helpers that have nothing left to do; what a user's writer left running may hold them
_ATTEMPTS = 3  # of a sample whose helpers die
_STARTS = 10  # in a row that come to nothing
_STARTS_BEFORE_THREADS = 3  # the same, where there is another way
_MOST_DEATHS = 60  # in a row
_LEAST_UNITS = 1024  # that the book has places for
_SECONDS_IN_LOCK = 5.0  # of a helper, after which it is looked at whether it stands still
_LETTERS_KEPT = 8 << 20  # bytes of memory, for reuse


@dataclass(slots=True, eq=False)
class _Sent:
    """A batch that helpers have, or are about to have.

    Attributes:
        letter: The slot that says what it is.
        left: Samples that are not done.
    """

    batch: Batch
    serial: int
    letter: Slot
    left: int


@dataclass(slots=True, eq=False)
class _Record:
    """A range of a batch in the book, with its samples that are not done; `again` if a helper had it that has died."""

    sent: _Sent
    left: int
    again: bool


class ProcessBackend:
    """Runs a job in `max_workers` helper processes, which read the samples from memory that they share.

    Everything that was put stands in the book at once, so that helpers finish it whatever becomes of this process.
    There is no thread that reads what they have done: whoever calls next does, or waits for it. A helper that dies is
    replaced, and what it had in its hand is put into the book again.

    Batches whose copy from an accelerator is still under way are held back until it has arrived, since a helper cannot
    wait for that: a thread does, and puts them into the book then, whatever the caller is at.

    Args:
        job: What is done with a unit.
        done: Called with each batch that something became of, and what, with no lock of ours held.
        max_workers: Helpers.
        memory: What slots lie in.
        queue_size: Samples that may be in flight at once.
        move: Takes over what is not done if helpers never get to work: called with the reason and some units of one
            batch, or none, and no lock of ours held. Without it these samples fail.

    Raises:
        TypeError: The job cannot be pickled.
        BackendUnavailableError: The system has no epoll for this process.
    """

    def __init__(
        self,
        job: Job,
        done: Callable[[Batch, Result], None],
        max_workers: int,
        *,
        memory: SharedMemory,
        queue_size: int,
        move: Callable[[BaseException, Sequence[Unit]], None] | None = None,
    ) -> None:
        self._job = job
        self._rows: tuple[Leaf | None, bytes] = None, b""  # of the last batch; races cost a letter made anew
        self._sealed_job = self._seal_job()
        self._done = done
        self._max_workers = max_workers
        # Where this process is gone, each helper may leave a unit behind when it dies, and its heir one sample of that,
        # while a third is at work.
        self._cells = 3 * max(2, max_workers)
        self._memory = memory
        self._letters = SlotPool(_LETTERS_KEPT, memory)
        self._capacity = max(queue_size, _LEAST_UNITS)  # units, of which each has a sample at least
        # Each helper that dies makes three records of one, which is there until then; so many may in a row.
        self._records_in_all = self._capacity + 4 * max_workers + 2 * _MOST_DEATHS
        self._folder, self._path = folder_and_path(sys.path)
        self._move = move
        self._book: Book
        self._own = Descriptors()
        self._book_file = self._job_file = self._news = self._tie = -1
        self._bells: tuple[int, ...] = ()
        self._has_book = False
        with needed("bells between processes (eventfd, epoll)"):
            self._events = _closed_epoll()
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._again: deque[tuple[_Sent, int, int]] = deque()  # of dead helpers, for which the book has no room now
        self._helpers: list[Process | None] = [None] * max_workers
        self._records: dict[int, _Record] = {}
        self._free_records: list[int] = []
        self._used_records = 0  # the first that was never used
        self._arrivals: Arrivals | None = None
        self._stuck = 0, 0.0  # who holds the book's lock, and since when
        self._held: deque[tuple[_Sent, int, int, int]] = deque()  # with start, stop and samples a unit
        self._units = 0  # in the book
        self._serial = 0
        self._results = 0  # of the book that were read
        self._tickets = [0] * max_workers  # the last that each helper has entered a result for
        self._failures_read = [0] * max_workers  # bytes
        self._deaths: dict[tuple[int, int], int] = {}  # by a batch's serial number and a sample's index
        self._killed: dict[int, WriteTimeoutError] = {}  # helpers that took too long
        self._late: dict[tuple[int, int], WriteTimeoutError] = {}  # by a batch's serial number and a sample's index
        self._failed_starts = 0
        self._deaths_in_a_row = 0  # with nothing done in between
        self._broken: BaseException | None = None
        self._given_up: BaseException | None = None  # why no helper is started any more; what they had not done moves
        self._moving: deque[list[Unit]] = deque()  # which is still to be told to `move`
        self._watchers = 0
        self._stopping = False
        # Held by the one who waits for all, at the events.
        self._post = threading.Lock()
        self._asleep = False  # changed by who has the post

    def _seal_job(self) -> bytes:
        job = self._job
        return seal(job, f"writer {job.writer.name!r} or its target {type(job.target).__name__}")

    # Life

    @property
    def kind(self) -> Literal["thread", "process"]:
        """What the workers are."""
        return "process"

    def start(self) -> None:
        """Start the helpers, and do not wait for them.

        Raises:
            BackendUnavailableError: The system cannot start them, or this process is no Python interpreter.
        """
        check_is_no_helper()
        program()
        # Once more, for the target knows more of its run since it was opened.
        self._sealed_job = self._seal_job()
        # So that whoever waits for the locks of the dead waits for helpers, too.
        self._inherited = descriptors_of(self._job.target)
        with self._lock:
            try:
                with needed("descriptors"), standard_descriptors():
                    self._open()
                for helper in range(self._max_workers):
                    with needed("processes of their own"):
                        self._launch(helper)
                with needed("descriptors"):
                    check_descriptors(max(process.alive for process in self._helpers if process is not None))
            except BaseException:
                self._close()
                raise

    def _open(self) -> None:
        _running.add(self)
        with needed("memory that processes share"):
            self._memory.open()
            self._open_book()
        with needed("bells between processes (eventfd, epoll)"):
            for _ in range(self._cells):
                self._bells = (*self._bells, self._own.open(make_bell))
            self._news = self._own.open(make_bell)
            self._tie = self._own.open(self._make_tie)
            with no_fork:
                self._events = select.epoll()
            self._events.register(self._news, select.EPOLLIN)

    def _open_book(self) -> None:
        self._book_file = self._file("book", Book.size_of(self._cells, self._records_in_all))
        self._book = Book(self._book_file, self._cells, self._records_in_all)
        self._has_book = True
        self._job_file = self._file("job", 0)
        job = memoryview(self._sealed_job)
        while job:
            job = job[os.write(self._job_file, job) :]

    def _file(self, what: str, size: int) -> int:
        descriptor = self._own.open(os.memfd_create, f"lighter-async-{what}", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, size)
        return descriptor

    def _make_tie(self) -> int:
        """The end of a pipe that helpers hold; the other one is this process's alone, and closed when it ends.

        So they know when it does, also by becoming another program (`os.execv`), which keeps its number.
        """
        theirs, ours = os.pipe()
        self._own.open(lambda: ours)
        return theirs

    def stop(self) -> None:
        """Let the helpers go. A signal's handler may raise in between; then it may be called again."""
        with uninterrupted():
            if self._arrivals is not None:
                self._arrivals.stop()
                self._arrivals = None
            with self._lock:
                self._stopping = True
                self._book.end()
                for bell in self._bells:
                    ring(bell)
                helpers = [process for process in self._helpers if process is not None]
            deadline = monotonic() + _SECONDS_TO_END
            for process in helpers:
                while not process.has_ended(_SECONDS_TO_NOTICE):
                    run_handlers()
                    if monotonic() > deadline:
                        process.popen.kill()
            with self._lock:
                self._close()

    def _close(self) -> None:
        """Let go of everything, also where not all of it could be had."""
        self._stopping = True
        if self._has_book:
            self._book.end()
        for bell in self._bells:
            ring(bell)
        for process in self._helpers:
            if process is not None:
                process.wait()
        self._helpers = [None] * self._max_workers
        self._letters.close()
        # Together, for a forked child closes what is still there.
        with no_fork:
            _running.discard(self)
            if self._has_book:
                self._has_book = False
                self._book.close()
            self._events.close()
            self._own.close_all()
            self._book_file = self._job_file = self._news = self._tie = -1
            self._bells = ()
        self._memory.close()

    def forked(self) -> None:
        """In a forked child: let go of what the parent and its helpers share, but for the slots' addresses."""
        if self._has_book:
            try:
                self._book.close()
            except BufferError:
                pass  # another thread of the parent was reading in it; it goes with that one's frames, if ever
        self._events.close()

    # In

    def prepare(self, batch: Batch) -> None:
        names = seal_names(batch.names, batch.origin)
        batch.letter = b"".join([len(names).to_bytes(8, "little"), names, self._seal_values(batch)])

    def _seal_values(self, batch: Batch) -> bytes:
        rows = batch.staged.rows
        if rows is None:
            return seal_values(batch, self._job)
        # A batch of rows is like the last one but for its names, mostly. Not the first, which may have come before
        # there was a template for it.
        known, values = self._rows
        if known == rows and values:
            return values
        values = seal_values(batch, self._job)
        self._rows = rows, values if known == rows else b""
        return values

    def put(self, units: Sequence[Unit]) -> None:
        batch, start, stop, per = units[0].batch, units[0].start, units[-1].stop, len(units[0])
        with uninterrupted():
            with self._lock:
                self._serial += 1
                sent = _Sent(batch, self._serial, self._letter_of(batch), stop - start)
                batch.begun = True
                finished: list[tuple[Batch, Result]] = []
                if self._broken is not None:
                    self._fail(sent, start, stop, self._broken, finished)
                else:
                    self._held.append((sent, start, stop, max(per, -(-(stop - start) // self._capacity))))
                    self._send_held(finished)
                    self._give_away()
                    self._wait_for_arrivals()
            self._tell(finished)

    def took(self, batch: Batch) -> bool:
        return batch.begun

    def is_worker(self) -> bool:
        return False

    def drop(self) -> list[Unit]:
        with uninterrupted(), self._lock:
            dropped: list[Unit] = []
            if self._events.closed:
                return dropped
            for record, start, stop in self._book.withdraw():
                sent = self._records[record].sent
                dropped.append(Unit(sent.batch, start, stop))
                self._leave(record, stop - start)
                self._done_with(sent, stop - start)
            for sent, start, stop in self._not_in_book():
                dropped.append(Unit(sent.batch, start, stop))
                self._done_with(sent, stop - start)
            return dropped

    # Out

    @property
    def is_idle(self) -> bool:
        """Whether helpers have nothing in their hands, nor in their queue."""
        return not (self._records or self._again or self._held)

    @contextmanager
    def watch(self) -> Iterator[int | None]:
        self._watch(1)
        try:
            yield self._events.fileno()
        finally:
            self._watch(-1)

    def _watch(self, more: int) -> None:
        # Helpers tell only who watches: telling costs both sides, and a loop that never waits looks for itself.
        with uninterrupted(), self._lock:
            if not self._events.closed:
                self._watchers += more
                self._book.watch(self._watchers)

    def collect(self) -> None:
        try:
            nothing_new = self._book.results == self._results and not self._held and not self._events.poll(0)
            if nothing_new and not self._late_helpers():
                self._look_for_stuck()
                return
        except ValueError:  # stopped meanwhile
            return
        with uninterrupted():
            with self._lock:
                finished = [] if self._stopping else self._collect()
            self._tell(finished)

    @property
    def needs_collect(self) -> bool:
        try:
            return bool(
                self._broken is not None or self._book.has_failures or self._events.poll(0) or self._late_helpers()
            )
        except ValueError:  # stopped meanwhile
            return False

    def wait(self, waiter: Waiter, timeout: float) -> None:
        if not self._post.acquire(blocking=False):
            waiter.wait(timeout)
            return
        try:
            # From here on whoever wakes the waiter rings, too; before, the waiter shows it.
            self._asleep = True
            with self.watch():
                self._ring_sleepers(everyone=True)
                if self._book.results == self._results and not waiter.is_awake:
                    self._events.poll(timeout)
            self._look_for_stuck()
        except ValueError:
            pass  # stopped meanwhile
        finally:
            self._asleep = False
            self._post.release()
        waiter.wait(0)
        self.collect()

    def wake(self) -> None:
        if self._asleep:
            with no_fork:  # so that it is not closed in between
                if self._news >= 0:
                    ring(self._news)

    def _look_for_stuck(self) -> None:
        """End a helper that stands still while it holds the book's lock, for which all others wait."""
        try:
            holder, now = self._book.holder, monotonic()
        except OSError:
            return  # stopped meanwhile
        if not holder or holder != self._stuck[0]:
            self._stuck = holder, now
            return
        seconds = now - self._stuck[1]
        if seconds > min(_SECONDS_IN_LOCK, self._job.patience.write_timeout or _SECONDS_IN_LOCK):
            self._book.end_if_stuck(seconds)

    def _wait_for_arrivals(self) -> None:
        """Have a thread put into the book what is on its way from a device, as soon as it has arrived."""
        ready = self._held[-1][0].batch.staged.ready if self._held else None
        if ready is not None:
            if self._arrivals is None:
                self._arrivals = Arrivals(self._arrived)
            self._arrivals.wait_for(ready)

    def _arrived(self) -> None:
        with self._lock:
            finished: list[tuple[Batch, Result]] = []
            if not self._events.closed:
                self._send_held(finished)
        self._tell(finished)

    def _tell(self, finished: Sequence[tuple[Batch, Result]]) -> None:
        for batch, result in finished:
            self._done(batch, result)
        while self._moving:
            assert self._move is not None
            assert self._given_up is not None
            self._move(self._given_up, self._moving.popleft())

    # With _lock held

    def _letter_of(self, batch: Batch) -> Slot:
        letter = self._letters.acquire(size_class(len(batch.letter), _LETTERS_KEPT), pinned=False)
        letter.memory[: len(batch.letter)] = memoryview(batch.letter)
        batch.letter = b""
        return letter

    @property
    def _has_record(self) -> bool:
        return bool(self._free_records) or self._used_records < self._records_in_all

    def _send_again(self) -> None:
        """Put into the book what dead helpers had in their hands, as far as the book has room for it."""
        while self._again and self._has_record and self._units < self._records_in_all:
            sent, start, stop = self._again.popleft()
            self._send(sent, start, stop, stop - start, again=True)

    def _send_held(self, finished: list[tuple[Batch, Result]]) -> None:
        """Put into the book what has arrived on the host, in order, as far as the book has room."""
        if self._given_up is not None:
            return
        self._send_again()
        while self._held and self._broken is None:
            sent, start, stop, per = self._held[0]
            if self._again or not self._has_record:
                return
            if self._records and self._units - (start - stop) // per > self._records_in_all:
                return
            ready = sent.batch.staged.ready
            try:
                if ready is not None and not ready.query():
                    return
            except Exception as error:  # the device failed, and the copy with it
                self._held.popleft()
                self._fail(sent, start, stop, error, finished)
                continue
            self._send(sent, start, stop, per)
            self._held.popleft()

    def _send(self, sent: _Sent, start: int, stop: int, per: int, *, again: bool = False) -> None:
        if self._free_records:
            number = self._free_records.pop()
        else:
            number = self._used_records
            self._used_records += 1
        slot = sent.batch.staged.slot
        self._records[number] = _Record(sent, stop - start, again)
        self._units += -(-(stop - start) // per)
        self._book.append(
            number,
            start,
            stop,
            per=per,
            serial=sent.serial,
            slot=(0, 0) if slot is None else (slot.offset, slot.memory.nbytes),
            letter=(sent.letter.offset, sent.letter.memory.nbytes),
            again=again,
        )
        self._ring_sleepers()

    def _ring_sleepers(self, *, everyone: bool = False) -> None:
        for sleeper in self._book.sleepers(everyone=everyone):
            ring(self._bells[sleeper])

    def _collect(self) -> list[tuple[Batch, Result]]:
        finished: list[tuple[Batch, Result]] = []
        ready = {descriptor for descriptor, _ in self._events.poll(0)}
        if self._news in ready:
            silence(self._news)
        self._read_results(finished)
        for helper in self._late_helpers():
            self._kill(helper)
        for helper, process in enumerate(self._helpers):
            if process is not None and process.alive in ready:
                self._bury(helper, process, finished)
        if self._broken is not None:
            self._fail_everything(self._broken, finished)
        self._send_held(finished)
        self._give_away()
        return finished

    def _read_results(self, finished: list[tuple[Batch, Result]]) -> None:
        if self._book.results == self._results:
            return
        self._failed_starts = self._deaths_in_a_row = 0
        for outcome in self._book.outcomes(self._results):
            self._results += 1
            self._units -= 1
            self._tickets[outcome.helper] = outcome.ticket
            self._enter(outcome, finished)

    def _enter(self, outcome: Outcome, finished: list[tuple[Batch, Result]]) -> None:
        sent = self._records[outcome.record].sent
        # The units of a batch mostly come together, and are booked as one.
        if not finished or finished[-1][0] is not sent.batch:
            finished.append((sent.batch, Result()))
        result = finished[-1][1]
        result.written += outcome.written
        result.skipped += outcome.skipped
        if outcome.failed:
            result.failures += self._read_failures(outcome.helper, outcome.failures)
        result.bytes_written += outcome.bytes_written
        result.encode_seconds += outcome.encode_ns / 1e9
        result.store_seconds += outcome.store_ns / 1e9
        self._leave(outcome.record, outcome.stop - outcome.start)
        self._done_with(sent, outcome.stop - outcome.start)

    def _read_failures(self, helper: int, end: int) -> list[WriteError]:
        process = self._helpers[helper]
        assert process is not None
        found = []
        while self._failures_read[helper] < end:
            begin = self._failures_read[helper] + 8
            place = begin - self._book.base(helper)
            length = int.from_bytes(os.pread(process.failures, 8, place - 8), "little")
            found.append(open_failure(os.pread(process.failures, length, place)))
            self._failures_read[helper] = begin + length
        self._book.read(helper, end)
        return found

    def _leave(self, number: int, samples: int) -> None:
        """So many samples of a record are done, or in another record from now on."""
        record = self._records[number]
        record.left -= samples
        if not record.left:
            del self._records[number]
            self._free_records.append(number)

    def _done_with(self, sent: _Sent, samples: int) -> None:
        sent.left -= samples
        if not sent.left:
            self._letters.release(sent.letter)

    # Deaths

    def _late_helpers(self) -> list[int]:
        """Those that have been at one sample for longer than `write_timeout`."""
        limit = self._job.patience.write_timeout
        if limit is None:
            return []
        before = monotonic_ns() - int(limit * 1e9)
        return [
            helper
            for helper in range(self._max_workers)
            if 0 < self._book.since(helper) < before and helper not in self._killed
        ]

    def _kill(self, helper: int) -> None:
        """End a helper that takes too long, once it has told where it is."""
        process = self._helpers[helper]
        if process is None:
            return
        limit = self._job.patience.write_timeout
        stack = process.stack()
        process.popen.kill()
        self._killed[helper] = WriteTimeoutError(
            f"writing took longer than write_timeout={limit:g} s, and the helper process was ended in\n{stack}",
            stack=stack,
        )

    def _launch(self, helper: int) -> None:
        failures = stack = -1
        try:
            with standard_descriptors():
                failures = self._file("failures", 0)
                stack = self._file("stack", 0)
            process = self._launched(helper, failures, stack)
        except BaseException:
            self._own.close(failures, stack)
            raise
        self._tickets[helper] = self._failures_read[helper] = 0
        self._helpers[helper] = process
        self._events.register(process.alive, select.EPOLLIN)

    def _launched(self, helper: int, failures: int, stack: int) -> Process:
        setting = Setting(
            helper=helper,
            helpers=self._cells,
            records=self._records_in_all,
            mapped=self._memory.mapped,
            parent=os.getpid(),
            book=self._book_file,
            slots=self._memory.descriptor,
            job=self._job_file,
            failures=failures,
            stack=stack,
            bells=self._bells,
            news=self._news,
            inherited=self._inherited,
            tie=self._tie,
        )
        return launch(setting, self._own, folder=self._folder, path=self._path)

    def _bury(self, helper: int, process: Process, finished: list[tuple[Batch, Result]]) -> None:
        """Take over what a dead helper had in its hand, and start another one in its place."""
        self._events.unregister(process.alive)
        self._read_results(finished)  # it may have entered one since we looked
        state, failures = self._book.state(helper), self._book.failures(helper)
        hand = self._book.in_hand(helper)
        cause: BaseException | None = None
        late = self._killed.pop(helper, None)
        if late is not None and hand is not None:
            self._late[self._records[hand[0].record].sent.serial, hand[2]] = late
        if state == BROKEN:
            cause = self._read_failures(helper, failures)[0].cause
        elif hand is not None and hand[0].ticket != self._tickets[helper]:
            self._take_over(*hand, process.popen.wait(), finished)
        # Only now, when it is in the queue again: were this process killed before, other helpers would take it over.
        self._book.clear(helper)
        self._helpers[helper] = None
        status = process.wait()
        if state == STARTING:
            self._failed_starts += 1
            if self._failed_starts >= (_STARTS if self._move is None or self._results else _STARTS_BEFORE_THREADS):
                cause = WorkerDiedError(
                    f"helper processes end before they are at work (the last one {_ending(status)}); what they print "
                    "on stderr may say why, and backend='thread' does without them"
                )
        if cause is None and self._given_up is None:
            try:
                self._launch(helper)
            except OSError as error:
                if any(self._helpers):
                    return
                cause = error
        if cause is None or self._move is None:
            self._broken = self._broken or cause
        elif self._given_up is None:
            self._given_up = cause
            self._moving.append([])  # so that it is told even if there is nothing to move

    def _take_over(
        self, hand: Outcome, is_done: bool, at: int, status: int, finished: list[tuple[Batch, Result]]
    ) -> None:
        """Book what a dead helper has done, or send it again, the sample that it was at by itself."""
        self._units -= 1
        if is_done:
            self._enter(hand, finished)
            return
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row >= _MOST_DEATHS:
            # Else each of a thousand such samples would have three helpers started for it.
            self._broken = WorkerDiedError(
                f"{_MOST_DEATHS} helper processes in a row ended at work without anything done in between, the last "
                f"one {_ending(status)}; the writer makes them crash, or the machine is out of memory"
            )
        sent = self._records[hand.record].sent
        key = sent.serial, at
        self._deaths[key] = self._deaths.get(key, 0) + 1
        is_last = self._deaths[key] == _ATTEMPTS
        self._leave(hand.record, hand.stop - hand.start)
        for start, stop in ((hand.start, at), (at, at if is_last else at + 1), (at + 1, hand.stop)):
            if start < stop:
                self._again.append((sent, start, stop))
        if self._given_up is None:
            self._send_again()
        if is_last:
            del self._deaths[key]
            error = self._late.pop(key, None) or WorkerDiedError(
                f"each of the {_ATTEMPTS} helper processes that were writing it ended, the last one {_ending(status)}; "
                "the sample or its writer makes them crash, or the machine is out of memory"
            )
            self._fail(sent, at, at + 1, error, finished, attempts=_ATTEMPTS)

    def _fail(
        self,
        sent: _Sent,
        start: int,
        stop: int,
        error: BaseException,
        finished: list[tuple[Batch, Result]],
        attempts: int = 1,
    ) -> None:
        unit = Unit(sent.batch, start, stop)
        finished.append((sent.batch, self._job.fail(unit, error, attempts)))
        self._done_with(sent, stop - start)

    def _fail_everything(self, error: BaseException, finished: list[tuple[Batch, Result]]) -> None:
        for number, start, stop in self._book.withdraw():
            sent = self._records[number].sent
            self._leave(number, stop - start)
            self._fail(sent, start, stop, error, finished)
        for sent, start, stop in self._not_in_book():
            self._fail(sent, start, stop, error, finished)

    def _give_away(self) -> None:
        """Have what no helper has in its hand moved, once they have given up."""
        if self._given_up is None or self._broken is not None:
            return
        for number, start, stop in self._book.withdraw(hurry=False):
            record = self._records[number]
            self._leave(number, stop - start)
            self._give(record.sent, start, stop, again=record.again)
        for sent, start, stop in self._again:
            self._give(sent, start, stop, again=True)
        for sent, start, stop, _ in self._held:
            self._give(sent, start, stop, again=False)
        self._again.clear()
        self._held.clear()

    def _give(self, sent: _Sent, start: int, stop: int, *, again: bool) -> None:
        per = -(-(stop - start) // self._max_workers)
        ends = range(start, stop, per)
        self._moving.append([Unit(sent.batch, first, min(first + per, stop), again) for first in ends])
        self._done_with(sent, stop - start)

    def _not_in_book(self) -> list[tuple[_Sent, int, int]]:
        """Take what is not in the book yet, or not again."""
        taken = [*self._again, *((sent, start, stop) for sent, start, stop, _ in self._held)]
        self._again.clear()
        self._held.clear()
        return taken


# Whose memory a forked child has to let go of: a data loader's worker may live as long as the job.
_running: weakref.WeakSet[ProcessBackend] = weakref.WeakSet()


def _forked() -> None:
    for backend in list(_running):
        backend.forked()
    _running.clear()


os.register_at_fork(after_in_child=_forked)


def _closed_epoll() -> select.epoll:
    events = select.epoll()
    events.close()
    return events


def _ending(status: int) -> str:
    if status >= 0:
        return f"with exit status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"
