"""The queue on a helper's side: it takes units, says what became of them, and inherits those of the dead."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic_ns

from lighter_async.workers.process.shared_queue import SharedQueue
from lighter_async.workers.process.shared_queue_words import (
    ASLEEP,
    AT,
    AWAKE,
    BASE,
    BROKEN,
    BYTES,
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
    MESSAGE_OFFSET,
    MESSAGE_SIZE,
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
    SEAL,
    SEALED,
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
)

__all__ = ["HelperQueue"]

_MOST_DEATHS = 3  # over one sample
_MOST_SUCCESSORS = 60


class HelperQueue(SharedQueue):
    """The queue as a helper has it."""

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
                # We say that we sleep, then look once more: the parent appends first, then looks for sleepers.
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

    def has_killed(self, helper: int) -> bool:
        """Whether others have died over the sample that this helper has inherited."""
        return self._words[self._cell(helper) + DEATHS] > 0

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
        self.progress_of(helper)(index)

    def progress_of(self, helper: int) -> Callable[[int | None], None]:
        """`on_progress` of this helper, which is called for every sample."""
        words = self._words
        at, since = self._cell(helper) + AT, self._cell(helper) + SINCE

        def on_progress(index: int | None) -> None:
            if index is None:
                words[since] = 0
            else:
                words[at] = index
                words[since] = monotonic_ns()

        return on_progress

    @property
    def is_waited_for(self) -> bool:
        """Whether a thread of the parent waits for what helpers do."""
        return self._words[WATCHERS] > 0

    @property
    def hurried(self) -> bool:
        """Whether helpers are to wait for nothing any more."""
        return bool(self._words[HURRY])

    @property
    def ending(self) -> bool:
        """Whether helpers are to end when the queue is empty."""
        return bool(self._words[CLOSING])

    @property
    def ends_unsealed(self) -> bool:
        """Whether helpers are to end without sealing what they have stored."""
        return self._words[CLOSING] == 2

    def request_to_seal(self, helper: int) -> int:
        """The number of the parent's latest request to seal, if this helper has not met it; else 0."""
        request = self._words[SEAL]
        return request if self._words[self._cell(helper) + SEALED] != request else 0

    def say_sealed(self, helper: int, request: int) -> None:
        """The helper has met a request to seal."""
        self._words[self._cell(helper) + SEALED] = request

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

    # With the lock held

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

    def _claim_of(self, cell: int) -> Claim:
        words = self._words
        place = self._records + words[cell + RECORD] * RECORD_WORDS
        slot = words[place + OFFSET], words[place + SIZE]
        message = words[place + MESSAGE_OFFSET], words[place + MESSAGE_SIZE]
        start, stop = words[cell + START], words[cell + STOP]
        return Claim(words[place + SERIAL], start, stop, slot, message, bool(words[place + REDELIVERED]))

    def _deaths_at(self, cell: int) -> int:
        """How many have died over the sample that a dead helper was at, this one included."""
        words = self._words
        return 1 + (words[cell + DEATHS] if words[cell + SUSPECT] == words[cell + AT] else 0)

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

    def _sleeper(self) -> int | None:
        # The first one, so that where one is enough, it is always the same, with what it needs still in its caches.
        for helper in range(self._helpers):
            if self._words[self._cell(helper) + STATE] == ASLEEP:
                return helper
        return None
