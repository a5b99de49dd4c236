"""The queue on the parent's side: it appends ranges of samples, and reads what became of them."""

from __future__ import annotations

from lighter_async.workers.process.shared_queue import SharedQueue
from lighter_async.workers.process.shared_queue_words import (
    ASLEEP,
    AT,
    BASE,
    CELL,
    CLOSING,
    DONE,
    FAILED_EVER,
    FAILURES,
    HEAD,
    HURRY,
    LAST,
    MESSAGE_OFFSET,
    MESSAGE_SIZE,
    NEXT,
    OFFSET,
    PER,
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
    STATE,
    TAIL,
    TICKET,
    WATCHERS,
    Outcome,
)

__all__ = ["ParentQueue"]


class ParentQueue(SharedQueue):
    """The queue as the process that hands samples over has it.

    It appends and reads without the lock, which it takes only to empty the queue, and to see what a dead helper had in
    its hand.
    """

    def append(
        self,
        record: int,
        start: int,
        stop: int,
        *,
        per: int,
        serial: int,
        slot: tuple[int, int],
        message: tuple[int, int],
        redelivered: bool = False,
    ) -> None:
        """Put a range into the queue under a record that is not in use."""
        words = self._words
        place = self._records + record * RECORD_WORDS
        words[place + OFFSET], words[place + SIZE] = slot
        words[place + MESSAGE_OFFSET], words[place + MESSAGE_SIZE] = message
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

    def since(self, helper: int) -> int:
        """When a helper began with the sample that it is at, by `time.monotonic_ns`; 0 if it is at none."""
        return self._words[self._cell(helper) + SINCE]

    def watch(self, watchers: int) -> None:
        """So many wait for helpers to do something from now on; what was done before may not be told to them."""
        self._words[WATCHERS] = watchers

    def ask_to_seal(self) -> int:
        """Have the helpers seal what they have stored; returns the number of the request."""
        self._words[SEAL] += 1
        return self._words[SEAL]

    def has_sealed(self, helper: int, request: int) -> bool:
        """Whether a helper has met a request to seal, or a later one."""
        return self._words[self._cell(helper) + SEALED] >= request

    def end(self, *, seal: bool) -> None:
        """Have the helpers end once the queue is empty.

        Args:
            seal: Whether they seal what they have stored before.
        """
        self._words[CLOSING] = 1 if seal else 2
