"""The queue that a process shares with its helpers, and what the helpers have done: fixed-size words in shared memory.

Everything that changes hands does so under one file lock, which the kernel releases when its holder dies. So a process
may be killed at any moment, in the middle of a change too, and the others go on from what stands in the book:

- A *record* is a range of a batch's samples. Helpers take a unit of it at a time, the oldest record first.
- A *cell* is a helper's own: the unit in its hand, which sample it is at, and what became of them. They are done
  together, by one store of one word, once all are stored and recorded: what a dead helper had not done is done again.
- A *result* is what became of a unit. Its helper enters it when it takes the next.

There are as many results as there may be units in flight, so that helpers never wait for the parent to read them, and
finish their work even if it is gone.
"""

from __future__ import annotations

import fcntl
import mmap
from time import monotonic_ns
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
_BEGINNING = 9

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
_CELL = 16

# A record:
_OFFSET = 0  # of the batch's slot
_SIZE = 1
_LETTER_OFFSET = 2  # of the slot that says what the batch is
_LETTER_SIZE = 3
_NEXT = 4  # the first sample that nobody has taken
_LAST = 5  # the sample behind the last one
_PER = 6  # samples a unit
_SERIAL = 7  # of the batch
_AGAIN = 8  # whether a helper had it that has died
_RECORD_WORDS = 9

# A result: the helper, the ticket, the record, and the cell from _START to _FAILURES.
_RESULT_WORDS = 12

# States of a helper.
STARTING, AWAKE, ASLEEP, BROKEN = range(4)


class Claim(NamedTuple):
    """A unit in a helper's hand: samples ``start`` to ``stop`` of a batch, and where that lies.

    It is there `again` if a helper had it that has died.
    """

    serial: int
    start: int
    stop: int
    slot: tuple[int, int]
    letter: tuple[int, int]
    again: bool


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
        again: bool = False,
    ) -> int | None:
        """Put a range into the queue under a record that is not in use; returns a helper that sleeps, if any does."""
        words = self._words
        try:
            self._lock()
            place = self._records + record * _RECORD_WORDS
            words[place + _OFFSET], words[place + _SIZE] = slot
            words[place + _LETTER_OFFSET], words[place + _LETTER_SIZE] = letter
            words[place + _NEXT] = start
            words[place + _LAST] = stop
            words[place + _PER] = per
            words[place + _SERIAL] = serial
            words[place + _AGAIN] = again
            tail = words[_TAIL]
            words[self._ring + tail % self._capacity] = record
            words[_TAIL] = tail + 1
            return self._sleeper()
        finally:
            self._unlock()

    def withdraw(self) -> list[tuple[int, int, int]]:
        """Empty the queue; returns the record, start and stop of what nobody had taken."""
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
            words[_HURRY] = 1
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
        try:
            self._lock()
            found = []
            for number in range(first, words[_RESULTS]):
                place = self._results + number % self._capacity * _RESULT_WORDS
                found.append(Outcome._make(words[place : place + _RESULT_WORDS]))
            return found
        finally:
            self._unlock()

    def in_hand(self, helper: int) -> tuple[Outcome, bool, int] | None:
        """What a dead helper had in its hand, whether that is done, and else at which sample it was.

        Its cell is free for the next.
        """
        words = self._words
        cell = self._cell(helper)
        try:
            self._lock()
            self._repair()
            found = None
            if words[cell + _TICKET]:
                outcome = Outcome(helper, words[cell + _TICKET], *words[cell + _RECORD : cell + _FAILURES + 1])
                found = outcome, bool(words[cell + _DONE]), words[cell + _AT]
            for word in range(cell, cell + _CELL):
                words[word] = 0
            return found
        finally:
            self._unlock()

    def state(self, helper: int) -> int:
        """Whether a helper has not looked at the queue yet (``STARTING``), or cannot work (``BROKEN``)."""
        return self._words[self._cell(helper) + _STATE]

    def failures(self, helper: int) -> int:
        """How many bytes of a helper's failures are whole."""
        return self._words[self._cell(helper) + _FAILURES]

    def watch(self, watchers: int) -> None:
        """So many wait for helpers to do something from now on; what was done before may not be told to them."""
        try:
            self._lock()
            self._words[_WATCHERS] = watchers
        finally:
            self._unlock()

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
        try:
            self._lock()
            self._repair()
            news = False
            if words[cell + _TICKET]:
                self._enter_result(helper, cell)
                news = words[_WATCHERS] > 0
            head, tail = words[_HEAD], words[_TAIL]
            while head < tail:
                record = words[self._ring + head % self._capacity]
                place = self._records + record * _RECORD_WORDS
                start, last = words[place + _NEXT], words[place + _LAST]
                if start < last:
                    break
                head += 1
            words[_HEAD] = head
            if head == tail:
                words[cell + _STATE] = ASLEEP
                return None, None, news
            stop = min(start + words[place + _PER], last)
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
            words[place + _NEXT] = stop
            words[_INTENT] = 0
            more = stop < last or head + 1 < tail
            slot = words[place + _OFFSET], words[place + _SIZE]
            letter = words[place + _LETTER_OFFSET], words[place + _LETTER_SIZE]
            claim = Claim(words[place + _SERIAL], start, stop, slot, letter, bool(words[place + _AGAIN]))
            return claim, self._sleeper() if more else None, news
        finally:
            self._unlock()

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
        # Last, and one store: they are done.
        words[cell + _DONE] = 1

    def at(self, helper: int, index: int | None) -> None:
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

    def _enter_result(self, helper: int, cell: int) -> None:
        words = self._words
        number = words[_RESULTS]
        place = self._results + number % self._capacity * _RESULT_WORDS
        words[place] = helper
        words[place + 1] = words[cell + _TICKET]
        words[place + 2 : place + _RESULT_WORDS] = words[cell + _RECORD : cell + _FAILURES + 1]
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
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)

    def _unlock(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
