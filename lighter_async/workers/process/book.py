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
from time import monotonic_ns

from lighter_async.workers.process.booklock import BookLock
from lighter_async.workers.process.words import (
    ASLEEP,
    AT,
    AWAKE,
    BASE,
    BEGINNING,
    BROKEN,
    BYTES,
    CELL,
    CLOSING,
    DEATHS,
    DONE,
    ENCODE_NS,
    FAILED,
    FAILED_EVER,
    FAILURES,
    HEAD,
    HURRY,
    INTENT,
    LAST,
    LETTER_OFFSET,
    LETTER_SIZE,
    NEXT,
    OFFSET,
    PER,
    PROCESS,
    READ,
    RECORD,
    RECORD_WORDS,
    REDELIVERED,
    RESULT_WORDS,
    RESULTS,
    SERIAL,
    SINCE,
    SIZE,
    SKIPPED,
    SOURCE,
    START,
    STATE,
    STOP,
    STORE_NS,
    SUCCESSORS,
    SUSPECT,
    TAIL,
    TICKET,
    TICKETS,
    WATCHERS,
    WRITTEN,
    Claim,
    Outcome,
)

__all__ = ["Book"]

_MOST_DEATHS = 3  # over one sample
_MOST_SUCCESSORS = 60


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
        self._ring = BEGINNING + helpers * CELL
        self._records = self._ring + records
        self._results = self._records + records * RECORD_WORDS
        self._mapping = mmap.mmap(descriptor, self.size_of(helpers, records))
        self._words = memoryview(self._mapping).cast("q")
        self.lock = BookLock(descriptor, self._processes)

    @staticmethod
    def size_of(helpers: int, records: int) -> int:
        """Bytes of a book."""
        return 8 * (BEGINNING + helpers * CELL + records * (1 + RECORD_WORDS + RESULT_WORDS))

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
        place = self._records + record * RECORD_WORDS
        words[place + OFFSET], words[place + SIZE] = slot
        words[place + LETTER_OFFSET], words[place + LETTER_SIZE] = letter
        words[place + NEXT] = start
        words[place + LAST] = stop
        words[place + PER] = per
        words[place + SERIAL] = serial
        words[place + REDELIVERED] = redelivered
        tail = words[TAIL]
        words[self._ring + tail % self._capacity] = record
        self._order()
        # Last, and one store: it is there.
        words[TAIL] = tail + 1

    def sleepers(self, *, everyone: bool = False) -> list[int]:
        """The helpers to wake for what is in the queue.

        Mostly the first one that sleeps, so that where one is enough, it is always the same, with what it needs still
        in its caches; it wakes the next if there is more. All of them where more than the latest record waits already,
        since one that was woken before may have been stopped by somebody.
        """
        words = self._words
        waiting = words[TAIL] - words[HEAD]
        found = []
        if waiting > 0:
            for helper in range(self._helpers):
                if words[self._cell(helper) + STATE] == ASLEEP:
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
            self.lock.acquire()
            self._repair()
            left = []
            for number in range(words[HEAD], words[TAIL]):
                record = words[self._ring + number % self._capacity]
                place = self._records + record * RECORD_WORDS
                if words[place + NEXT] < words[place + LAST]:
                    left.append((record, words[place + NEXT], words[place + LAST]))
                    words[place + NEXT] = words[place + LAST]
            words[HEAD] = words[TAIL]
            words[HURRY] |= hurry
            return left
        finally:
            self.lock.release()

    @property
    def has_failures(self) -> bool:
        """Whether a sample has failed, ever."""
        return bool(self._words[FAILED_EVER])

    @property
    def results(self) -> int:
        """How many results were entered, ever."""
        return self._words[RESULTS]

    def outcomes(self, first: int) -> list[Outcome]:
        """The results from number `first` on."""
        words = self._words
        found = []
        end = words[RESULTS]
        self._order()
        for number in range(first, end):
            place = self._results + number % self._capacity * RESULT_WORDS
            found.append(Outcome._make(words[place : place + RESULT_WORDS]))
        return found

    def in_hand(self, helper: int) -> tuple[Outcome, bool, int] | None:
        """What a dead helper had in its hand, whether that is done, and else at which sample it was."""
        words = self._words
        cell = self._cell(helper)
        try:
            self.lock.acquire()
            self._repair()
            self._next()  # so that no place of the queue names a record that is about to be used again
            found = None
            if words[cell + TICKET]:
                outcome = Outcome(helper, words[cell + TICKET], *words[cell + RECORD : cell + FAILURES + 1])
                found = outcome, bool(words[cell + DONE]), words[cell + AT]
            return found
        finally:
            self.lock.release()

    def clear(self, helper: int) -> None:
        """Free the cell of a dead helper for the next one, once what it had in its hand is in the queue again."""
        words = self._words
        cell = self._cell(helper)
        words[cell + TICKET] = 0
        for word in range(cell, cell + CELL):
            words[word] = 0

    def state(self, helper: int) -> int:
        """Whether a helper has not looked at the queue yet (``STARTING``), or cannot work (``BROKEN``)."""
        return self._words[self._cell(helper) + STATE]

    def failures(self, helper: int) -> int:
        """How many bytes of a helper's failures are whole."""
        return self._words[self._cell(helper) + FAILURES]

    def read(self, helper: int, nbytes: int) -> None:
        """The parent has read so many bytes of a helper's failures."""
        self._words[self._cell(helper) + READ] = nbytes

    def base(self, helper: int) -> int:
        """How many bytes of a helper's failures were before the first one in its file."""
        return self._words[self._cell(helper) + BASE]

    def _processes(self) -> list[int]:
        """The numbers of the helpers' processes; 0 of one that has not begun."""
        return [self._words[self._cell(helper) + PROCESS] for helper in range(self._helpers)]

    def watch(self, watchers: int) -> None:
        """So many wait for helpers to do something from now on; what was done before may not be told to them."""
        self._words[WATCHERS] = watchers

    def end(self) -> None:
        """Have the helpers end once the queue is empty."""
        self._words[CLOSING] = 1

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
            self.lock.acquire()
            self._repair()
            # First, for the parent uses a record again once its last result is there.
            record = self._next()
            if words[cell + TICKET]:
                self._enter_result(helper, cell)
                had_unit = True
            if record is None:
                # Said first, and looked at once more after that: whoever appends does so first, and then looks for us.
                words[cell + STATE] = ASLEEP
                record = self._next()
            claim = None if record is None else self._take(helper, cell, record)
            sleeper = self._sleeper() if claim is not None and self._next() is not None else None
        finally:
            self.lock.release()
        return claim, sleeper, had_unit and words[WATCHERS] > 0

    def inherit(self, helper: int) -> Claim | None:
        """Take a sample that a dead helper had in its hand, whose parent is dead too; None if nothing is left behind.

        What became of the unit in the own hand is entered first. A sample over which three helpers have died is left
        out: it is not recorded, and so it is the next run's.
        """
        words = self._words
        mine = self._cell(helper)
        try:
            self.lock.acquire()
            self._repair()
            if words[mine + TICKET]:
                self._enter_result(helper, mine)
            left: list[tuple[int, int]] = []
            for other in range(self._helpers):
                cell = self._cell(other)
                if other == helper or not words[cell + TICKET] or self.is_alive(other):
                    continue
                samples = words[cell + STOP] - words[cell + START]
                if words[cell + DONE] or (samples == 1 and self._deaths_at(cell) >= _MOST_DEATHS):
                    words[cell + TICKET] = 0
                else:
                    left.append((samples, other))
            if not left:
                return None
            # Single ones first: each has a cell that is free again then, for the next successor.
            _, other = min(left)
            cell = self._cell(other)
            index = words[cell + START]
            words[mine + SUSPECT] = index
            words[mine + DEATHS] = self._deaths_at(cell) if words[cell + AT] == index else 0
            words[mine + SOURCE] = other + 1
            self._hold(helper, words[cell + RECORD], index, index + 1)
            self._take_from(cell, index + 1)
            words[INTENT] = 0
            return self._claim_of(mine)._replace(redelivered=True)
        finally:
            self.lock.release()

    def live(self, helper: int) -> bool:
        """Say that this process is a helper, from now on until it dies; returns whether its cell was free."""
        if not self.lock.live(helper):
            return False  # another one was started for it at the same time
        self._words[self._cell(helper) + PROCESS] = os.getpid()
        # What a dead one has left there is not this one's.
        return not self._words[self._cell(helper) + TICKET]

    def is_alive(self, helper: int) -> bool:
        """Whether another process is this helper, and alive."""
        return self.lock.is_alive(helper)

    def others(self, helper: int) -> list[int]:
        """The other helpers that are alive."""
        return [other for other in range(self._helpers) if other != helper and self.is_alive(other)]

    @property
    def has_work(self) -> bool:
        """Whether there is a unit in the queue, or in somebody's hand, that is not done."""
        words = self._words
        cells = map(self._cell, range(self._helpers))
        return words[HEAD] < words[TAIL] or any(words[cell + TICKET] and not words[cell + DONE] for cell in cells)

    def free_cell(self, me: int) -> int | None:
        """A cell that neither this helper nor another living one has, and no dead one has left a unit in."""
        for helper in range(self._helpers):
            if helper != me and not self._words[self._cell(helper) + TICKET] and not self.is_alive(helper):
                return helper
        return None

    def may_have_successor(self) -> bool:
        """Whether one more helper may be started by another one: a writer that crashes in each must come to an end."""
        self._words[SUCCESSORS] += 1
        return self._words[SUCCESSORS] <= _MOST_SUCCESSORS

    def count(
        self, helper: int, *, written: int, skipped: int, failed: int, nbytes: int, encode_ns: int, store_ns: int
    ) -> None:
        """Say what became of the samples of the unit in hand: so many were written, skipped and failed."""
        words = self._words
        cell = self._cell(helper)
        words[cell + SINCE] = 0
        words[cell + WRITTEN] = written
        words[cell + SKIPPED] = skipped
        words[cell + FAILED] = failed
        words[cell + BYTES] = nbytes
        words[cell + ENCODE_NS] = encode_ns
        words[cell + STORE_NS] = store_ns
        self._order()
        # Last, and one store: they are done.
        words[cell + DONE] = 1

    def on_progress(self, helper: int, index: int | None) -> None:
        """This helper begins to write a sample of the unit in its hand, or to wait for another attempt (None)."""
        words = self._words
        cell = self._cell(helper)
        if index is None:
            words[cell + SINCE] = 0
        else:
            words[cell + AT] = index
            words[cell + SINCE] = monotonic_ns()

    def since(self, helper: int) -> int:
        """When a helper began with the sample that it is at, by `time.monotonic_ns`; 0 if it is at none."""
        return self._words[self._cell(helper) + SINCE]

    @property
    def hurried(self) -> bool:
        """Whether helpers are to wait for nothing any more."""
        return bool(self._words[HURRY])

    def is_all_read(self, helper: int) -> bool:
        """Whether the parent has read all of this helper's failures."""
        cell = self._cell(helper)
        return self._words[cell + READ] == self._words[cell + FAILURES]

    def begin_failures_anew(self, helper: int) -> None:
        """This helper's file of failures, all of which are read, begins anew."""
        cell = self._cell(helper)
        self._words[cell + BASE] = self._words[cell + FAILURES]

    def say_failures(self, helper: int, nbytes: int) -> None:
        """So many bytes of this helper's failures are whole."""
        self._words[self._cell(helper) + FAILURES] = nbytes
        self._words[FAILED_EVER] = 1

    def say_broken(self, helper: int) -> None:
        """This helper cannot work."""
        self._words[self._cell(helper) + STATE] = BROKEN

    @property
    def ending(self) -> bool:
        """Whether helpers are to end when the queue is empty."""
        return bool(self._words[CLOSING])

    # With the lock held

    def _next(self) -> int | None:
        """The first record of the queue with samples that nobody has taken; those before it leave the queue."""
        words = self._words
        head, tail = words[HEAD], words[TAIL]
        self._order()
        while head < tail:
            record = words[self._ring + head % self._capacity]
            place = self._records + record * RECORD_WORDS
            if words[place + NEXT] < words[place + LAST]:
                break
            head += 1
        words[HEAD] = head
        return words[self._ring + head % self._capacity] if head < tail else None

    def _take(self, helper: int, cell: int, record: int) -> Claim:
        words = self._words
        place = self._records + record * RECORD_WORDS
        start = words[place + NEXT]
        stop = min(start + words[place + PER], words[place + LAST])
        words[cell + SUSPECT] = -1
        words[cell + SOURCE] = 0
        self._hold(helper, record, start, stop)
        words[place + NEXT] = stop
        words[INTENT] = 0
        return self._claim_of(cell)

    def _hold(self, helper: int, record: int, start: int, stop: int) -> None:
        """Have a unit in a helper's hand, which is still to be taken from where it was."""
        words = self._words
        cell = self._cell(helper)
        words[cell + STATE] = AWAKE
        words[cell + RECORD] = record
        words[cell + START] = start
        words[cell + STOP] = stop
        words[cell + DONE] = 0
        words[cell + AT] = start
        # Were this process killed between these, whoever has the lock next would complete them.
        words[INTENT] = helper + 1
        words[TICKETS] += 1
        words[cell + TICKET] = words[TICKETS]

    def _take_from(self, cell: int, start: int) -> None:
        """The samples before one are no longer in a dead helper's hand."""
        words = self._words
        words[cell + START] = start
        if start >= words[cell + STOP]:
            words[cell + TICKET] = 0

    def _deaths_at(self, cell: int) -> int:
        """How many have died over the sample that a dead helper was at, this one included."""
        words = self._words
        return 1 + (words[cell + DEATHS] if words[cell + SUSPECT] == words[cell + AT] else 0)

    def _claim_of(self, cell: int) -> Claim:
        words = self._words
        place = self._records + words[cell + RECORD] * RECORD_WORDS
        slot = words[place + OFFSET], words[place + SIZE]
        letter = words[place + LETTER_OFFSET], words[place + LETTER_SIZE]
        start, stop = words[cell + START], words[cell + STOP]
        return Claim(words[place + SERIAL], start, stop, slot, letter, bool(words[place + REDELIVERED]))

    def _enter_result(self, helper: int, cell: int) -> None:
        words = self._words
        number = words[RESULTS]
        place = self._results + number % self._capacity * RESULT_WORDS
        words[place] = helper
        words[place + 1] = words[cell + TICKET]
        words[place + 2 : place + RESULT_WORDS] = words[cell + RECORD : cell + FAILURES + 1]
        self._order()
        words[RESULTS] = number + 1
        # Killed here, its ticket says that the result was entered already.
        words[cell + TICKET] = 0
        for word in range(cell + WRITTEN, cell + FAILURES):
            words[word] = 0

    def _repair(self) -> None:
        """Complete what a helper was killed in the middle of."""
        words = self._words
        helper = words[INTENT] - 1
        if helper < 0:
            return
        cell = self._cell(helper)
        if words[cell + TICKET]:
            if words[cell + SOURCE]:
                self._take_from(self._cell(words[cell + SOURCE] - 1), words[cell + STOP])
            else:
                words[self._records + words[cell + RECORD] * RECORD_WORDS + NEXT] = words[cell + STOP]
        words[INTENT] = 0

    def _sleeper(self) -> int | None:
        # The first one, so that where one is enough, it is always the same, with what it needs still in its caches.
        for helper in range(self._helpers):
            if self._words[self._cell(helper) + STATE] == ASLEEP:
                return helper
        return None

    def _cell(self, helper: int) -> int:
        return BEGINNING + helper * CELL

    def _order(self) -> None:
        """What was stored, or looked at, before comes before what is stored, or looked at, after this."""
        if not _KEEPS_ORDER:
            # Any call that gives the interpreter's lock away and takes it back, which are atomic operations.
            fcntl.fcntl(self._descriptor, fcntl.F_GETFD)


_KEEPS_ORDER = platform.machine() in ("x86_64", "AMD64", "i686")
"""Whether processors of this kind show stores in their order, as x86 does and ARM does not."""
