"""The queue that a process shares with its helpers, and what the helpers have done: fixed-size words in shared memory.

What helpers take from each other they take under one file lock, which the kernel releases when its holder dies. So a
process may be killed at any moment, in the middle of a change too, and the others go on from what stands in the queue.
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

import mmap
import platform

from lighter_async.workers.process.shared_queue_lock import QueueLock
from lighter_async.workers.process.shared_queue_words import (
    BEGINNING,
    CELL,
    HEAD,
    INTENT,
    LAST,
    NEXT,
    PROCESS,
    RECORD,
    RECORD_WORDS,
    RESULT_WORDS,
    SOURCE,
    START,
    STOP,
    TAIL,
    TICKET,
)

try:
    import fcntl
except ImportError:  # Windows, where no helper is started
    fcntl = None  # type: ignore[assignment]

__all__ = ["SharedQueue"]


class SharedQueue:
    """One process's view of the queue: what both sides do with it.

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
        self.lock = QueueLock(descriptor, self._processes)

    @staticmethod
    def size_of(helpers: int, records: int) -> int:
        """Bytes of a queue."""
        return 8 * (BEGINNING + helpers * CELL + records * (1 + RECORD_WORDS + RESULT_WORDS))

    def close(self) -> None:
        """Let go of the memory."""
        self._words.release()
        self._mapping.close()

    def _processes(self) -> list[int]:
        """The numbers of the helpers' processes; 0 of one that has not begun."""
        return [self._words[self._cell(helper) + PROCESS] for helper in range(self._helpers)]

    # With the lock held, in a turn

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

    def _take_from(self, cell: int, start: int) -> None:
        """The samples before one are no longer in a dead helper's hand."""
        words = self._words
        words[cell + START] = start
        if start >= words[cell + STOP]:
            words[cell + TICKET] = 0

    # At any time

    def _cell(self, helper: int) -> int:
        return BEGINNING + helper * CELL

    def _order(self) -> None:
        """What was stored, or looked at, before comes before what is stored, or looked at, after this."""
        if not _KEEPS_ORDER:
            # Any call that gives the interpreter's lock away and takes it back, which are atomic operations.
            fcntl.fcntl(self._descriptor, fcntl.F_GETFD)


_KEEPS_ORDER = platform.machine() in ("x86_64", "AMD64", "i686")
"""Whether processors of this kind show stores in their order, as x86 does and ARM does not."""
