"""Memory is touched before it is needed, in a thread beside the loop.

The kernel finds and clears a page when it is written to for the first time, which takes several times as long as
copying to it. While workers lag behind, each batch would meet such pages.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ahead", "give_back", "touch"]

_PIECE = 1 << 20  # bytes at a time, for which a lock is held that the loop may need for memory of its own
_MADV_REMOVE = 9
_MADV_POPULATE_WRITE = 23  # since Linux 5.14; earlier ones refuse it


class Ahead:
    """Calls functions, one after the other, in a thread of its own, which begins with the first of them."""

    def __init__(self) -> None:
        self._asked: deque[Callable[[], None] | None] = deque()
        self._more = threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        # The thread refers to these two alone, so that it ends with a writer that nobody has closed.
        weakref.finalize(self, _end, self._asked, self._more).atexit = False

    def ask(self, call: Callable[[], None]) -> None:
        """Have it called soon. What it raises is lost, since nobody waits for it."""
        self._asked.append(call)
        if self._thread is None:
            arguments = self._asked, self._more
            self._thread = threading.Thread(target=_run, args=arguments, name="lighter-async-memory", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the system has no thread left, or the interpreter is shutting down
                self._thread = None
                self._asked.clear()
                return
        self._more.release()

    def close(self) -> None:
        """End the thread. A call that is under way is waited for, and others are left out."""
        thread, self._thread = self._thread, None
        if thread is not None and self._process == os.getpid():
            self._asked.clear()
            _end(self._asked, self._more)
            thread.join()


def _end(asked: deque[Callable[[], None] | None], more: threading.Semaphore) -> None:
    asked.append(None)
    more.release()


def _run(asked: deque[Callable[[], None] | None], more: threading.Semaphore) -> None:
    # With the loop's priority: the kernel holds a lock of the whole process's memory meanwhile.
    while True:
        more.acquire()
        try:
            call = asked.popleft()
        except IndexError:
            continue
        if call is None:
            return
        try:
            call()
        except Exception:
            pass  # memory that is not there now is asked for again when it is needed, and that one is told
        del call


def touch(memory: NDArray[np.uint8], is_wanted: Callable[[], bool] = lambda: True) -> None:
    """Have the kernel find pages for memory, whose content stays as it is. Does nothing where it cannot.

    Args:
        memory: The memory, which begins at a page.
        is_wanted: Whether to go on, asked before each piece.
    """
    if sys.platform == "linux":
        address, populate = memory.ctypes.data, _madvise()
        for start in range(0, memory.nbytes, _PIECE):
            if not is_wanted():
                break
            populate(address + start, min(_PIECE, memory.nbytes - start), _MADV_POPULATE_WRITE)


def give_back(memory: NDArray[np.uint8]) -> None:
    """Return the pages of memory that is shared, if only among processes of ours, to the system.

    Nobody may read from it any more. Does nothing where it cannot: then they go with the mapping.
    """
    if sys.platform == "linux":
        _madvise()(memory.ctypes.data, memory.nbytes, _MADV_REMOVE)


@functools.cache
def _madvise() -> Any:
    import ctypes  # here, since helpers never need it

    function = ctypes.CDLL(None).madvise  # which, unlike that of a mapping, lets the loop go on meanwhile
    function.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return function
