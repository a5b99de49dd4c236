"""Slots of host memory, reused within one budget.

Copying into memory that was used before is faster than into fresh memory, since the kernel has to find and clear fresh
pages first. So a slot is kept when its batch is done, and serves the next batch of its size class.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lighter_async.staging.ahead import Ahead, touch

__all__ = ["PAGE", "Memory", "Pin", "Slot", "SlotPool", "size_class", "unpinned"]

PAGE = 4096
_LEAST_AHEAD = 1 << 18  # bytes of a slot that is worth a thread's turn

Pin = Callable[[NDArray[np.uint8]], Callable[[], None] | None]
"""Pins memory for an accelerator, and returns a function that unpins it; None if it is not pinned."""


@dataclass(slots=True, eq=False)
class Slot:
    """A piece of host memory.

    Attributes:
        memory: Its bytes, writable.
        pinned: Whether it is for copies from an accelerator, and pinned if the system allows it.
        offset: Where it lies in memory that is shared with other processes.
        unpin: Unpins it; None if it is not pinned.
        seen_as: The last leaves that it was viewed as, by their offsets, each with its tensor. The next batch mostly
            has the same layout.
    """

    memory: NDArray[np.uint8]
    pinned: bool
    offset: int = 0
    unpin: Callable[[], None] | None = None
    seen_as: dict[int, tuple[Any, Any]] = field(default_factory=dict)


class Memory(Protocol):
    """Allocates and frees slots. Several threads may call it at once."""

    def allocate(self, size: int, *, pinned: bool) -> Slot:
        """A new slot.

        Raises:
            MemoryError: The machine has no more memory.
        """
        ...

    def free(self, slot: Slot) -> None:
        """Return a slot's memory to the system. Nobody may read from it any more."""
        ...

    def first(self, nbytes: int) -> NDArray[np.uint8]:
        """The memory, of so many bytes at most, that is given out first; called before any is."""
        ...

    def let_go_of_first(self) -> None:
        """Return what was not given out of the first memory to the system."""
        ...


def unpinned(slot: Slot) -> bool:
    """Unpin a slot that is pinned; returns whether its memory may be used for something else."""
    if slot.unpin is not None:
        try:
            slot.unpin()
        except Exception:  # the device has failed, and may write there or not
            return False
    return True


@functools.lru_cache(maxsize=256)
def size_class(nbytes: int, budget: int) -> int:
    """The size of the slot that holds `nbytes`: at most an eighth larger, in whole pages.

    With size classes, batches of nearly one size share memory. A batch that fits the budget gets a slot that fits it.
    """
    if nbytes == 0:
        return 0
    step = max(PAGE, 1 << max(0, nbytes.bit_length() - 4))
    rounded = -(-nbytes // step) * step
    return rounded if rounded <= budget or nbytes > budget else budget


class SlotPool:
    """Hands out slots, and keeps free ones as long as all bytes together stay within the budget.

    These are the bytes of used and free slots, what is held besides them, and the first memory that was touched and
    lies in no slot yet. The service keeps what is used within the budget: it admits a batch only when its bytes fit.
    """

    def __init__(self, budget: int, memory: Memory) -> None:
        self.budget = budget
        self._memory = memory
        self._lock = threading.Lock()
        self._free: dict[tuple[int, bool], list[Slot]] = {}
        self._total = 0  # all bytes together; guarded by _lock
        self._first = 0  # of them those of the first memory that lie in no slot; guarded by _lock
        self._ahead: Ahead | None = None

    @property
    def total(self) -> int:
        """Bytes that are used, held, free, or were touched ahead."""
        return self._total

    def work_ahead(self, first: int) -> None:
        """From now on until `close`, have a thread touch a slot more than there are used ones, if it is a large one.

        Args:
            first: Bytes to touch now, since the first slots are there.
        """
        memory = self._memory.first(min(first, self.budget))
        with self._lock:
            self._first = len(memory)
            self._make_room(self._first)
            self._total += self._first
        self._ahead = Ahead()
        self._ahead.ask(partial(touch, memory, self._is_first_wanted))

    def acquire(self, size: int, *, pinned: bool) -> Slot:
        """A slot of exactly `size` bytes, its content undefined.

        Raises:
            MemoryError: The machine has no more memory.
        """
        with self._lock:
            slots = self._free.get((size, pinned))
            slot = slots.pop() if slots else None
            if slot is None:
                self._count_new(size, pinned=pinned)
        if slot is None:
            slot = self._allocate(size, pinned=pinned)
        if not slots and self._ahead is not None and size >= _LEAST_AHEAD and not pinned:
            self._ahead.ask(partial(self._prepare, size))
        return slot

    def hold(self, nbytes: int) -> None:
        """Count bytes that are in no slot, until they are let go of: free slots give way to them."""
        with self._lock:
            self._make_room(nbytes)
            self._total += nbytes

    def let_go(self, nbytes: int) -> None:
        """End a `hold`."""
        with self._lock:
            self._total -= nbytes

    def _count_new(self, size: int, *, pinned: bool) -> None:
        if pinned:  # batches come from a device, whose slots do not lie in the first memory
            self._let_go_of_first()
        else:
            taken = min(size, self._first)  # it lies there, or what is left of that is let go of
            self._first -= taken
            self._total -= taken
        self._make_room(size)
        self._total += size

    def _is_first_wanted(self) -> bool:
        return self._first > 0

    def _allocate(self, size: int, *, pinned: bool) -> Slot:
        """A slot whose bytes are counted already, but not if there is none."""
        try:
            return self._memory.allocate(size, pinned=pinned)
        except BaseException:
            with self._lock:
                self._total -= size
            raise

    def _prepare(self, size: int) -> None:
        """Have a free slot of this size whose memory was touched, if there is none and the budget has room for it."""
        with self._lock:
            # Room for a batch besides, which may come while memory is touched that cannot be taken from it then.
            if self._ahead is None or self._free.get((size, False)) or self._total + 2 * size > self.budget:
                return
            self._count_new(size, pinned=False)
        slot = self._allocate(size, pinned=False)
        touch(slot.memory)
        self.release(slot)

    def release(self, slot: Slot) -> None:
        """Take a slot back. Nobody may read from it any more."""
        size = len(slot.memory)
        with self._lock:
            if self._total > self.budget:  # the slot of an oversized batch is not kept
                self._total -= size
                self._memory.free(slot)
            else:
                self._free.setdefault((size, slot.pinned), []).append(slot)

    def forget(self, slot: Slot, *, is_quiet: bool = True) -> None:
        """Take a slot back, never to hand it out again: somebody may still read or write there, so it is not freed.

        Args:
            slot: The slot.
            is_quiet: Whether no device copies into it, so that it need not stay pinned.
        """
        if is_quiet:
            unpinned(slot)
        with self._lock:
            self._total -= len(slot.memory)

    def close(self) -> None:
        """Free the slots that are not used, and what lies in none."""
        ahead, self._ahead = self._ahead, None
        with self._lock:
            self._total -= self._first
            self._first = 0  # which ends the touching of it
        if ahead is not None:
            ahead.close()
        self._memory.let_go_of_first()
        with self._lock:
            for slots in self._free.values():
                for slot in slots:
                    self._total -= len(slot.memory)
                    self._memory.free(slot)
            self._free.clear()

    def _let_go_of_first(self) -> None:
        if self._first:
            self._total -= self._first
            self._first = 0  # before it is let go of, so that no more of it is touched
            self._memory.let_go_of_first()

    def _make_room(self, size: int) -> None:
        # What lies in no slot yet goes first, then free slots, the class that got its first one longest ago first.
        if self._total + size > self.budget:
            self._let_go_of_first()
        for key in list(self._free):
            while self._total + size > self.budget and self._free[key]:
                self._memory.free(self._free[key].pop())
                self._total -= key[0]
            if not self._free[key]:
                del self._free[key]
