"""Memory that helper processes share.

It is one anonymous file in memory (`memfd_create`). A container's small ``/dev/shm`` does not limit it, it leaves no
name behind, and it ends with the last process that holds it. Slots are ranges of it. The first part, twice as large as
the budget, is mapped once: addresses cost nothing, and the gaps leave room for slots of mixed sizes. A slot that does
not fit there lies behind that part, and is mapped by itself.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading

import numpy as np
from numpy.typing import NDArray

from lighter_async.forks import Descriptors
from lighter_async.staging.slots import PAGE, Pin, Slot, unpinned

try:
    import resource
except ImportError:  # Windows, which has no helper processes that could share memory
    resource = None  # type: ignore[assignment]

__all__ = ["SharedMemory", "SharedView"]


_MORE = 16 << 20  # bytes, for letters to the helpers and for gaps


def _limit(name: str) -> int | None:
    """A resource's limit for this process; None if there is none."""
    if resource is None:
        return None
    soft, _ = resource.getrlimit(getattr(resource, name))
    return None if soft == resource.RLIM_INFINITY else soft


class SharedMemory:
    """Slots in a file in memory.

    Args:
        budget: Bytes that slots are expected to take together.
        pin: Pins memory for an accelerator, and returns a function that unpins it, or None.

    Attributes:
        descriptor: The file, for processes that map it.
        mapped: The size of the part that is mapped once.
    """

    def __init__(self, budget: int, *, pin: Pin) -> None:
        self._budget = -(-budget // PAGE) * PAGE
        self.mapped = 2 * self._budget + _MORE
        self._pin = pin
        self._lock = threading.Lock()
        self._own = Descriptors()
        # Guarded by _lock:
        self.descriptor = -1
        self._mapping: mmap.mmap | None = None
        self._memory = np.empty(0, np.uint8)
        self._gaps: list[tuple[int, int]] = []  # offset and size of free ranges, in order, none of them adjacent
        self._apart: dict[int, mmap.mmap] = {}  # by offset, slots behind the mapped part
        self._first = 0  # bytes at its beginning that were asked for before any slot
        self._end = self.mapped  # less once it is open, if addresses are limited

    def open(self) -> None:
        """Make the file.

        Raises:
            OSError: The system has no descriptor or no addresses left, or allows no file of that size.
        """
        if _limit("RLIMIT_AS") is not None:
            self._end = self.mapped = self._budget + _MORE  # addresses are limited, and the job needs some
        longest = _limit("RLIMIT_FSIZE")
        if longest is not None and longest < self.mapped + self._budget:
            # Not just tried: a process that does not ignore SIGXFSZ, as Python does, would be ended.
            raise OSError(errno.EFBIG, f"files are limited to {longest} bytes (ulimit -f), those in memory, too")
        self.descriptor = self._own.open(os.memfd_create, "lighter-async", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, self.mapped)
        self._mapping = mmap.mmap(self.descriptor, self.mapped)
        self._memory = np.frombuffer(self._mapping, np.uint8)
        self._gaps = [(0, self.mapped)]

    def first(self, nbytes: int) -> NDArray[np.uint8]:
        self._first = min(nbytes, self._budget)
        return self._memory[: self._first]

    def let_go_of_first(self) -> None:
        with self._lock:
            for offset, free in self._gaps:
                size = min(offset + free, self._first) - offset
                if size > 0 and self._mapping is not None:
                    self._mapping.madvise(mmap.MADV_REMOVE, offset, size)
            self._first = 0

    def allocate(self, size: int, *, pinned: bool) -> Slot:
        size = -(-size // PAGE) * PAGE
        with self._lock:
            offset = self._take(size)
            if offset is None:
                offset, memory = self._map_apart(size)
            else:
                memory = self._memory[offset : offset + size]
        try:
            return Slot(memory, pinned, offset, self._pin(memory) if pinned else None)
        except BaseException:
            self._give_back(offset, size)
            raise

    def free(self, slot: Slot) -> None:
        # Pinned memory that the system took back would be another one for the process than for the device.
        if unpinned(slot):
            self._give_back(slot.offset, slot.memory.nbytes)

    def close(self) -> None:
        """Close the file. Its memory is freed with the last slot and the last process that maps it."""
        with self._lock:
            self._own.close_all()
            self.descriptor = -1
            self._mapping = None
            self._memory = np.empty(0, np.uint8)
            self._apart.clear()

    def _give_back(self, offset: int, size: int) -> None:
        with self._lock:
            apart = self._apart.pop(offset, None)
            if apart is not None:
                apart.madvise(mmap.MADV_REMOVE)
                if not self._apart:
                    self._end = self.mapped
            elif self._mapping is not None:
                self._mapping.madvise(mmap.MADV_REMOVE, offset, size)
                self._put_back(offset, size)

    def _take(self, size: int) -> int | None:
        for index, (offset, free) in enumerate(self._gaps):
            if free >= size:
                self._gaps[index : index + 1] = [(offset + size, free - size)] if free > size else []
                return offset
        return None

    def _put_back(self, offset: int, size: int) -> None:
        gaps = sorted([*self._gaps, (offset, size)])
        merged = gaps[:1]
        for start, free in gaps[1:]:
            before, length = merged[-1]
            if before + length == start:
                merged[-1] = before, length + free
            else:
                merged.append((start, free))
        self._gaps = merged

    def _map_apart(self, size: int) -> tuple[int, NDArray[np.uint8]]:
        offset = self._end
        os.ftruncate(self.descriptor, offset + size)
        self._apart[offset] = mapping = mmap.mmap(self.descriptor, size, offset=offset)
        self._end += size
        return offset, np.frombuffer(mapping, np.uint8)


class SharedView:
    """The same memory, in a process that was given its descriptor.

    Args:
        descriptor: The file.
        mapped: The size of the part that every process maps once.
    """

    def __init__(self, descriptor: int, mapped: int) -> None:
        self._descriptor = descriptor
        self._mapping = mmap.mmap(descriptor, mapped)
        self._memory = np.frombuffer(self._mapping, np.uint8)

    def slot(self, offset: int, size: int) -> Slot:
        """The slot at an offset."""
        if offset + size <= self._memory.nbytes:
            return Slot(self._memory[offset : offset + size], False, offset)
        return Slot(np.frombuffer(mmap.mmap(self._descriptor, size, offset=offset), np.uint8), False, offset)

    def discard(self) -> None:
        """Return the memory of all slots to the system, also where other processes still map it."""
        self._mapping.madvise(mmap.MADV_REMOVE)
        os.ftruncate(self._descriptor, len(self._mapping))
