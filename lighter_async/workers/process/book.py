"""The queue that a process shares with its helpers, and what the helpers have done: fixed-size words in shared memory.

What helpers take from each other they take under one file lock, which the kernel releases when its holder dies. So a
process may be killed at any moment, in the middle of a change too, and the others go on from what stands in the book.
The process that hands samples over takes no lock: it alone appends, and what it has written of a record is there before
the one store that publishes it; likewise it reads results that a store has published. (Stores are seen in their order
on x86; elsewhere a system call comes between, on both sides.) So no helper can hold it up.

- A *record* is a range of a batch's samples. Helpers take a unit of it at a time, the oldest record first.
- A *cell* is a helper's own: the unit in its hand, which sample it is at, and what became of them. They are done
  together, by one store of one word, once all are stored and recorded: what a dead helper had not done is done again.
- A *result* is what became of a unit. Its helper enters it when it takes the next.

There are as many results as there may be units in flight, so that helpers never wait for the parent to read them, and
finish their work even if it is gone. Then they look after each other: one that has died while the parent is gone leaves
its unit to the others, which *inherit* it, sample by sample, so that one that kills them takes no other with it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import platform
import signal
import struct
from time import monotonic_ns, sleep
from typing import NamedTuple

__all__ = ["BROKEN", "STARTING", "Book", "Claim", "Outcome"]

# Words at the beginning:
_HEAD = 0  # places of the queue that are taken
_TAIL = 1  # places of the queue that are filled
_RESULTS = 2  # results that were entered, ever
_CLOSING = 3  # whether helpers are to end when the queue is empty
_TICKETS = 4  # units that were taken, ever
_INTENT = 5  # the helper that is taking a unit, plus one; else 0
_WATCHERS = 6  # of the parent's, who want to be told when something was done
_FAILED_EVER = 7  # whether a sample has failed, ever
_HURRY = 8  # whether helpers are to wait for nothing any more, since what is queued was dropped
_SUCCESSORS = 9  # helpers that were started by others, since the parent is gone
_BEGINNING = 10

# A helper's cell:
_TICKET = 0  # of the unit in hand, 0 if there is none
_RECORD = 1
_START = 2
_STOP = 3
_WRITTEN = 4
_SKIPPED = 5
_FAILED = 6
_BYTES = 7
_ENCODE_NS = 8
_STORE_NS = 9
_FAILURES = 10  # bytes of the helper's failures that are whole
_STATE = 11
_DONE = 12  # whether the samples of the unit in hand are counted
_AT = 13  # the sample that is being written
_SINCE = 14  # when that was begun, in nanoseconds of the monotonic clock; 0 between units
_PROCESS = 15  # the helper's process number
_DEATHS = 16  # helpers that died over the sample that the unit in hand is at, without the parent
_READ = 17  # bytes of its failures that the parent has read
_BASE = 18  # bytes of its failures that its file begins behind
_SUSPECT = 19  # that sample
_SOURCE = 20  # the dead helper that the unit in hand is inherited from, plus one; 0 if it comes from the queue
_CELL = 21

# A record:
_OFFSET = 0  # of the batch's slot
_SIZE = 1
_LETTER_OFFSET = 2  # of the slot that says what the batch is
_LETTER_SIZE = 3
_NEXT = 4  # the first sample that nobody has taken
_LAST = 5  # the sample behind the last one
_PER = 6  # samples a unit
_SERIAL = 7  # of the batch
_REDELIVERED = 8  # whether a helper had it that has died
_RECORD_WORDS = 9

# A result: the helper, the ticket, the record, and the cell from _START to _FAILURES.
_RESULT_WORDS = 12

_MOST_DEATHS = 3  # over one sample
_MOST_SUCCESSORS = 60
_FLOCK = "hhqqi4x"  # Linux's struct flock, as C aligns it
_ALIVE = 1 << 32  # where in the file each helper locks a byte for as long as it lives
_SECONDS_STOPPED, _SECONDS_STUCK = 2.0, 60.0  # that others wait for a lock whose holder stands still

# States of a helper.
STARTING, AWAKE, ASLEEP, BROKEN = range(4)


class Claim(NamedTuple):
    """A unit in a helper's hand: samples ``start`` to ``stop`` of a batch, and where that lies.

    It is `redelivered` if it was in the hand of a helper that died.
    """

    serial: int
    start: int
    stop: int
    slot: tuple[int, int]
    letter: tuple[int, int]
    redelivered: bool


class Outcome(NamedTuple):
    """What became of a unit, in the order in which a result is entered."""

    helper: int
    ticket: int
    record: int
    start: int
    stop: int
    written: int
    skipped: int
    failed: int
    bytes_written: int
    encode_ns: int
    store_ns: int
    failures: int


class Book:
    """One process's view of the book.

    Args:
        descriptor: A file in memory, of `size_of` bytes, all zero at first. It must stay open, and no other
            descriptor of the file be closed, since closing any gives the lock away.
        helpers: Helpers at once.
        records: Records, and units of theirs, that may be in flight at once.
    """

    def __init__(self, descriptor: int, helpers: int, records: int) -> None:
        self._descriptor = descriptor
        self._helpers = helpers
        self._capacity = records
        self._ring = _BEGINNING + helpers * _CELL
        self._records = self._ring + records
        self._results = self._records + records * _RECORD_WORDS
        self._mapping = mmap.mmap(descriptor, self.size_of(helpers, records))
        self._words = memoryview(self._mapping).cast("q")

    @staticmethod
    def size_of(helpers: int, records: int) -> int:
        """Bytes of a book."""
        return 8 * (_BEGINNING + helpers * _CELL + records * (1 + _RECORD_WORDS + _RESULT_WORDS))

    def close(self) -> None:
        self._words.release()
        self._mapping.close()

    # What the parent does

    def append(
        self,
        record: int,
        start: int,
        stop: int,
        *,
        per: int,
        serial: int,
        slot: tuple[int, int],
        letter: tuple[int, int],
        redelivered: bool = False,
    ) -> None:
        """Put a range into the queue under a record that is not in use."""
        words = self._words
        place = self._records + record * _RECORD_WORDS
        words[place + _OFFSET], words[place + _SIZE] = slot
        words[place + _LETTER_OFFSET], words[place + _LETTER_SIZE] = letter
        words[place + _NEXT] = start
        words[place + _LAST] = stop
        words[place + _PER] = per
        words[place + _SERIAL] = serial
        words[place + _REDELIVERED] = redelivered
        tail = words[_TAIL]
        words[self._ring + tail % self._capacity] = record
        self._order()
        # Last, and one store: it is there.
        words[_TAIL] = tail + 1

    def sleepers(self, *, everyone: bool = False) -> list[int]:
        """The helpers to wake for what is in the queue.

        Mostly the first one that sleeps, so that where one is enough, it is always the same, with what it needs still
        in its caches; it wakes the next if there is more. All of them where more than the latest record waits already,
        since one that was woken before may have been stopped by somebody.
        """
        words = self._words
        waiting = words[_TAIL] - words[_HEAD]
        found = []
        if waiting > 0:
            for helper in range(self._helpers):
                if words[self._cell(helper) + _STATE] == ASLEEP:
                    found.append(helper)
                    if waiting == 1 and not everyone:
                        break
        return found

    def withdraw(self, *, hurry: bool = True) -> list[tuple[int, int, int]]:
        """Empty the queue; returns the record, start and stop of what nobody had taken.

        Args:
            hurry: Whether helpers are to wait for nothing any more.
        """
        words = self._words
        try:
            self._lock()
            self._repair()
            left = []
            for number in range(words[_HEAD], words[_TAIL]):
                record = words[self._ring + number % self._capacity]
                place = self._records + record * _RECORD_WORDS
                if words[place + _NEXT] < words[place + _LAST]:
                    left.append((record, words[place + _NEXT], words[place + _LAST]))
                    words[place + _NEXT] = words[place + _LAST]
            words[_HEAD] = words[_TAIL]
            words[_HURRY] |= hurry
            return left
        finally:
            self._unlock()

    @property
    def has_failures(self) -> bool:
        """Whether a sample has failed, ever."""
        return bool(self._words[_FAILED_EVER])

    @property
    def results(self) -> int:
        """How many results were entered, ever."""
        return self._words[_RESULTS]

    def outcomes(self, first: int) -> list[Outcome]:
        """The results from number `first` on."""
        words = self._words
        found = []
        end = words[_RESULTS]
        self._order()
        for number in range(first, end):
            place = self._results + number % self._capacity * _RESULT_WORDS
            found.append(Outcome._make(words[place : place + _RESULT_WORDS]))
        return found

    def in_hand(self, helper: int) -> tuple[Outcome, bool, int] | None:
        """What a dead helper had in its hand, whether that is done, and else at which sample it was."""
        words = self._words
        cell = self._cell(helper)
        try:
            self._lock()
            self._repair()
            self._next()  # so that no place of the queue names a record that is about to be used again
            found = None
            if words[cell + _TICKET]:
                outcome = Outcome(helper, words[cell + _TICKET], *words[cell + _RECORD : cell + _FAILURES + 1])
                found = outcome, bool(words[cell + _DONE]), words[cell + _AT]
            return found
        finally:
            self._unlock()

    def clear(self, helper: int) -> None:
        """Free the cell of a dead helper for the next one, once what it had in its hand is in the queue again."""
        words = self._words
        cell = self._cell(helper)
        words[cell + _TICKET] = 0
        for word in range(cell, cell + _CELL):
            words[word] = 0

    def state(self, helper: int) -> int:
        """Whether a helper has not looked at the queue yet (``STARTING``), or cannot work (``BROKEN``)."""
        return self._words[self._cell(helper) + _STATE]

    def failures(self, helper: int) -> int:
        """How many bytes of a helper's failures are whole."""
        return self._words[self._cell(helper) + _FAILURES]

    def read(self, helper: int, nbytes: int) -> None:
        """The parent has read so many bytes of a helper's failures."""
        self._words[self._cell(helper) + _READ] = nbytes

    def base(self, helper: int) -> int:
        """How many bytes of a helper's failures were before the first one in its file."""
        return self._words[self._cell(helper) + _BASE]

    def process(self, helper: int) -> int:
        """The number of a helper's process; 0 if it has not begun."""
        return self._words[self._cell(helper) + _PROCESS]

    def watch(self, watchers: int) -> None:
        """So many wait for helpers to do something from now on; what was done before may not be told to them."""
        self._words[_WATCHERS] = watchers

    def end(self) -> None:
        """Have the helpers end once the queue is empty."""
        self._words[_CLOSING] = 1

    # What a helper does

    def turn(self, helper: int) -> tuple[Claim | None, int | None, bool]:
        """Enter what became of the unit in hand, and take the next one, if there is any.

        Returns:
            The unit; another helper, who sleeps and is to be woken because there are more; and whether the parent is
            to be told that something was done.
        """
        words = self._words
        cell = self._cell(helper)
        had_unit = False
        try:
            self._lock()
            self._repair()
            # First, for the parent uses a record again once its last result is there.
            record = self._next()
            if words[cell + _TICKET]:
                self._enter_result(helper, cell)
                had_unit = True
            if record is None:
                # Said first, and looked at once more after that: whoever appends does so first, and then looks for us.
                words[cell + _STATE] = ASLEEP
                record = self._next()
            claim = None if record is None else self._take(helper, cell, record)
            sleeper = self._sleeper() if claim is not None and self._next() is not None else None
        finally:
            self._unlock()
        return claim, sleeper, had_unit and words[_WATCHERS] > 0

    def inherit(self, helper: int) -> Claim | None:
        """Take a sample that a dead helper had in its hand, whose parent is dead too; None if nothing is left behind.

        What became of the unit in the own hand is entered first. A sample over which three helpers have died is left
        out: it is not recorded, and so it is the next run's.
        """
        words = self._words
        mine = self._cell(helper)
        try:
            self._lock()
            self._repair()
            if words[mine + _TICKET]:
                self._enter_result(helper, mine)
            left: list[tuple[int, int]] = []
            for other in range(self._helpers):
                cell = self._cell(other)
                if other == helper or not words[cell + _TICKET] or self.is_alive(other):
                    continue
                samples = words[cell + _STOP] - words[cell + _START]
                if words[cell + _DONE] or (samples == 1 and self._deaths_at(cell) >= _MOST_DEATHS):
                    words[cell + _TICKET] = 0
                else:
                    left.append((samples, other))
            if not left:
                return None
            # Single ones first: each has a cell that is free again then, for the next successor.
            _, other = min(left)
            cell = self._cell(other)
            index = words[cell + _START]
            words[mine + _SUSPECT] = index
            words[mine + _DEATHS] = self._deaths_at(cell) if words[cell + _AT] == index else 0
            words[mine + _SOURCE] = other + 1
            self._hold(helper, words[cell + _RECORD], index, index + 1)
            self._take_from(cell, index + 1)
            words[_INTENT] = 0
            return self._claim_of(mine)._replace(redelivered=True)
        finally:
            self._unlock()

    def live(self, helper: int) -> bool:
        """Say that this process is a helper, from now on until it dies; returns whether its cell was free."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _ALIVE + helper)
        except (BlockingIOError, PermissionError):
            return False  # another one was started for it at the same time
        self._words[self._cell(helper) + _PROCESS] = os.getpid()
        # What a dead one has left there is not this one's.
        return not self._words[self._cell(helper) + _TICKET]

    def is_alive(self, helper: int) -> bool:
        """Whether another process is this helper, and alive."""
        return bool(self._holder(_ALIVE + helper))

    def others(self, helper: int) -> list[int]:
        """The other helpers that are alive."""
        return [other for other in range(self._helpers) if other != helper and self.is_alive(other)]

    @property
    def has_work(self) -> bool:
        """Whether there is a unit in the queue, or in somebody's hand, that is not done."""
        words = self._words
        cells = map(self._cell, range(self._helpers))
        return words[_HEAD] < words[_TAIL] or any(words[cell + _TICKET] and not words[cell + _DONE] for cell in cells)

    def free_cell(self, me: int) -> int | None:
        """A cell that neither this helper nor another living one has, and no dead one has left a unit in."""
        for helper in range(self._helpers):
            if helper != me and not self._words[self._cell(helper) + _TICKET] and not self.is_alive(helper):
                return helper
        return None

    def may_have_successor(self) -> bool:
        """Whether one more helper may be started by another one: a writer that crashes in each must come to an end."""
        self._words[_SUCCESSORS] += 1
        return self._words[_SUCCESSORS] <= _MOST_SUCCESSORS

    def count(
        self, helper: int, *, written: int, skipped: int, failed: int, nbytes: int, encode_ns: int, store_ns: int
    ) -> None:
        """Say what became of the samples of the unit in hand: so many were written, skipped and failed."""
        words = self._words
        cell = self._cell(helper)
        words[cell + _SINCE] = 0
        words[cell + _WRITTEN] = written
        words[cell + _SKIPPED] = skipped
        words[cell + _FAILED] = failed
        words[cell + _BYTES] = nbytes
        words[cell + _ENCODE_NS] = encode_ns
        words[cell + _STORE_NS] = store_ns
        self._order()
        # Last, and one store: they are done.
        words[cell + _DONE] = 1

    def on_progress(self, helper: int, index: int | None) -> None:
        """This helper begins to write a sample of the unit in its hand, or to wait for another attempt (None)."""
        words = self._words
        cell = self._cell(helper)
        if index is None:
            words[cell + _SINCE] = 0
        else:
            words[cell + _AT] = index
            words[cell + _SINCE] = monotonic_ns()

    def since(self, helper: int) -> int:
        """When a helper began with the sample that it is at, by `time.monotonic_ns`; 0 if it is at none."""
        return self._words[self._cell(helper) + _SINCE]

    @property
    def hurried(self) -> bool:
        """Whether helpers are to wait for nothing any more."""
        return bool(self._words[_HURRY])

    def is_all_read(self, helper: int) -> bool:
        """Whether the parent has read all of this helper's failures."""
        cell = self._cell(helper)
        return self._words[cell + _READ] == self._words[cell + _FAILURES]

    def begin_failures_anew(self, helper: int) -> None:
        """This helper's file of failures, all of which are read, begins anew."""
        cell = self._cell(helper)
        self._words[cell + _BASE] = self._words[cell + _FAILURES]

    def say_failures(self, helper: int, nbytes: int) -> None:
        """So many bytes of this helper's failures are whole."""
        self._words[self._cell(helper) + _FAILURES] = nbytes
        self._words[_FAILED_EVER] = 1

    def say_broken(self, helper: int) -> None:
        """This helper cannot work."""
        self._words[self._cell(helper) + _STATE] = BROKEN

    @property
    def ending(self) -> bool:
        """Whether helpers are to end when the queue is empty."""
        return bool(self._words[_CLOSING])

    # With the lock held

    def _next(self) -> int | None:
        """The first record of the queue with samples that nobody has taken; those before it leave the queue."""
        words = self._words
        head, tail = words[_HEAD], words[_TAIL]
        self._order()
        while head < tail:
            record = words[self._ring + head % self._capacity]
            place = self._records + record * _RECORD_WORDS
            if words[place + _NEXT] < words[place + _LAST]:
                break
            head += 1
        words[_HEAD] = head
        return words[self._ring + head % self._capacity] if head < tail else None

    def _take(self, helper: int, cell: int, record: int) -> Claim:
        words = self._words
        place = self._records + record * _RECORD_WORDS
        start = words[place + _NEXT]
        stop = min(start + words[place + _PER], words[place + _LAST])
        words[cell + _SUSPECT] = -1
        words[cell + _SOURCE] = 0
        self._hold(helper, record, start, stop)
        words[place + _NEXT] = stop
        words[_INTENT] = 0
        return self._claim_of(cell)

    def _hold(self, helper: int, record: int, start: int, stop: int) -> None:
        """Have a unit in a helper's hand, which is still to be taken from where it was."""
        words = self._words
        cell = self._cell(helper)
        words[cell + _STATE] = AWAKE
        words[cell + _RECORD] = record
        words[cell + _START] = start
        words[cell + _STOP] = stop
        words[cell + _DONE] = 0
        words[cell + _AT] = start
        # Were this process killed between these, whoever has the lock next would complete them.
        words[_INTENT] = helper + 1
        words[_TICKETS] += 1
        words[cell + _TICKET] = words[_TICKETS]

    def _take_from(self, cell: int, start: int) -> None:
        """The samples before one are no longer in a dead helper's hand."""
        words = self._words
        words[cell + _START] = start
        if start >= words[cell + _STOP]:
            words[cell + _TICKET] = 0

    def _deaths_at(self, cell: int) -> int:
        """How many have died over the sample that a dead helper was at, this one included."""
        words = self._words
        return 1 + (words[cell + _DEATHS] if words[cell + _SUSPECT] == words[cell + _AT] else 0)

    def _claim_of(self, cell: int) -> Claim:
        words = self._words
        place = self._records + words[cell + _RECORD] * _RECORD_WORDS
        slot = words[place + _OFFSET], words[place + _SIZE]
        letter = words[place + _LETTER_OFFSET], words[place + _LETTER_SIZE]
        start, stop = words[cell + _START], words[cell + _STOP]
        return Claim(words[place + _SERIAL], start, stop, slot, letter, bool(words[place + _REDELIVERED]))

    def _enter_result(self, helper: int, cell: int) -> None:
        words = self._words
        number = words[_RESULTS]
        place = self._results + number % self._capacity * _RESULT_WORDS
        words[place] = helper
        words[place + 1] = words[cell + _TICKET]
        words[place + 2 : place + _RESULT_WORDS] = words[cell + _RECORD : cell + _FAILURES + 1]
        self._order()
        words[_RESULTS] = number + 1
        # Killed here, its ticket says that the result was entered already.
        words[cell + _TICKET] = 0
        for word in range(cell + _WRITTEN, cell + _FAILURES):
            words[word] = 0

    def _repair(self) -> None:
        """Complete what a helper was killed in the middle of."""
        words = self._words
        helper = words[_INTENT] - 1
        if helper < 0:
            return
        cell = self._cell(helper)
        if words[cell + _TICKET]:
            if words[cell + _SOURCE]:
                self._take_from(self._cell(words[cell + _SOURCE] - 1), words[cell + _STOP])
            else:
                words[self._records + words[cell + _RECORD] * _RECORD_WORDS + _NEXT] = words[cell + _STOP]
        words[_INTENT] = 0

    def _sleeper(self) -> int | None:
        # The first one, so that where one is enough, it is always the same, with what it needs still in its caches.
        for helper in range(self._helpers):
            if self._words[self._cell(helper) + _STATE] == ASLEEP:
                return helper
        return None

    def _cell(self, helper: int) -> int:
        return _BEGINNING + helper * _CELL

    def _lock(self) -> None:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except (BlockingIOError, PermissionError):
            self._wait_for_lock()

    def _wait_for_lock(self) -> None:
        """Take the lock, which nobody holds for longer than a few lines; end a helper that stands still in them."""
        delay, waited, last = 2e-5, 0.0, 0
        while True:
            sleep(delay)
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
                return
            except (BlockingIOError, PermissionError):
                pass
            delay = min(2 * delay, 0.01)
            holder = self._holder(0)
            waited = waited + delay if holder == last else 0.0
            last = holder
            if waited > _SECONDS_STOPPED:
                self.end_if_stuck(waited)

    def end_if_stuck(self, seconds: float) -> None:
        """End the helper that holds the lock, if it is stopped, or stands still for too long.

        Args:
            seconds: How long it has held it for sure.
        """
        holder = self._holder(0)
        if not holder or all(self.process(helper) != holder for helper in range(self._helpers)):
            return
        if seconds >= (_SECONDS_STOPPED if _is_stopped(holder) else _SECONDS_STUCK):
            try:
                os.kill(holder, signal.SIGKILL)
            except OSError:
                pass

    @property
    def holder(self) -> int:
        """The number of the process that holds the lock; 0 if none does."""
        return self._holder(0)

    def _holder(self, place: int) -> int:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
        kind, _, _, _, process = struct.unpack(_FLOCK, fcntl.fcntl(self._descriptor, fcntl.F_GETLK, asked))
        return 0 if kind == fcntl.F_UNLCK else process

    def _unlock(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1)

    def _order(self) -> None:
        """What was stored, or looked at, before comes before what is stored, or looked at, after this."""
        if not _KEEPS_ORDER:
            # Any call that gives the interpreter's lock away and takes it back, which are atomic operations.
            fcntl.fcntl(self._descriptor, fcntl.F_GETFD)


_KEEPS_ORDER = platform.machine() in ("x86_64", "AMD64", "i686")
"""Whether processors of this kind show stores in their order, as x86 does and ARM does not."""


def _is_stopped(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read(1024).rpartition(b")")[2].split()[0] in b"Tt"
    except (OSError, IndexError):
        return False
