"""Memory of this process alone, for workers that are threads."""

from __future__ import annotations

import mmap
import threading

import numpy as np
from numpy.typing import NDArray

from lighter_async.staging.ahead import give_back
from lighter_async.staging.slots import Pin, Slot, unpinned

__all__ = ["PrivateMemory"]


class PrivateMemory:
    """Slots in memory of this process alone.

    Each slot is a mapping of its own, so that freeing it returns its memory to the system. The heap would keep it. Only
    the first slots may share one, which was asked for before.

    So is pinned memory: PyTorch would round its size up to a power of two, and keep it when it is freed.

    Args:
        pin: Pins memory for an accelerator, and returns a function that unpins it, or None.
    """

    def __init__(self, pin: Pin) -> None:
        self._pin = pin
        self._lock = threading.Lock()
        self._first = np.empty(0, np.uint8)  # what is left of it; guarded by _lock

    def first(self, nbytes: int) -> NDArray[np.uint8]:
        try:
            first = np.frombuffer(mmap.mmap(-1, nbytes), np.uint8)
        except OSError:  # addresses are short, and a writer starts without it
            return np.empty(0, np.uint8)
        with self._lock:
            self._first = first
        return first

    def let_go_of_first(self) -> None:
        with self._lock:
            self._let_go_of_first()

    def allocate(self, size: int, *, pinned: bool) -> Slot:
        memory = None if pinned else self._of_first(size)
        if memory is None:
            memory = np.frombuffer(mmap.mmap(-1, size), np.uint8)
        return Slot(memory, pinned, unpin=self._pin(memory) if pinned else None)

    def free(self, slot: Slot) -> None:
        if unpinned(slot):
            give_back(slot.memory)  # now, since the mapping ends with the last slot that lies in it

    def _of_first(self, size: int) -> NDArray[np.uint8] | None:
        with self._lock:
            if size > len(self._first):  # what is left of it is too small, and would be for the next ones
                self._let_go_of_first()
                return None
            taken, self._first = self._first[:size], self._first[size:]
        return taken

    def _let_go_of_first(self) -> None:
        if len(self._first):
            give_back(self._first)
            self._first = np.empty(0, np.uint8)  # and no part of the mapping, which ends with its last slot
