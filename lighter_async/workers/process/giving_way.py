"""Work that lets the loop go first, and does not where somebody waits for it.

A priority that was lowered cannot be raised again without a privilege, and a helper of a low one stands still where
other programs want all cores. So it is a thread of a helper's that has it, and the helper's own thread works itself as
long as somebody waits. A user's code may have to stay in one thread, which has it for good then. In either case it is a
thread of the loop's priority that takes units from the queue: whoever stands still holds no lock that others need.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

__all__ = ["GivingWay", "OtherThread", "give_way"]

_T = TypeVar("_T")

# Whoever has waited for room is likely to wait again, as soon as the next batch is handed over.
_SECONDS_AFTER_A_WAIT = 0.2
_NICENESS = 10  # a tenth of a core that others want, too


def give_way(*, wholly: bool = False) -> None:
    """Let the loop go first: give the calling thread a low priority.

    Args:
        wholly: Whether it is to run only on cores that nothing else wants, and to leave one at once when a program
            wants it.
    """
    try:
        if wholly:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        else:
            os.nice(_NICENESS)
    except OSError:
        pass  # a sandbox may forbid it


class OtherThread:
    """A thread that is started at once, and calls what is given to it, one call after the other.

    Args:
        begin: What it does first.

    Raises:
        RuntimeError: The system has no thread left.
    """

    def __init__(self, begin: Callable[[], None] = lambda: None) -> None:
        self._first = begin
        self._begin, self._end = threading.Lock(), threading.Lock()
        self._begin.acquire()
        self._end.acquire()
        self._call: Callable[[], Any] | None = None
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="lighter-async", daemon=True)
        self._thread.start()

    def __call__(self, call: Callable[[], _T]) -> _T:
        """What `call` returns, or raises."""
        self._call = call
        self._begin.release()
        self._end.acquire()
        result, error = self._result, self._error
        self._call = self._result = self._error = None
        if error is not None:
            raise error
        made: _T = result
        return made

    def close(self) -> None:
        """End the thread, which is at no call."""
        self._begin.release()
        self._thread.join()

    def _run(self) -> None:
        self._first()
        while True:
            self._begin.acquire()
            call = self._call
            if call is None:
                return
            try:
                self._result = call()
            except BaseException as error:
                self._error = error
            del call
            self._end.release()


class GivingWay:
    """Calls what is given to it in a thread of low priority.

    Args:
        is_waited_for: Whether somebody waits for what is done. Then the calling thread does it itself.
    """

    def __init__(self, is_waited_for: Callable[[], bool]) -> None:
        self._is_waited_for = is_waited_for
        self._until = 0.0  # so long the calling thread does it itself
        self._thread: OtherThread | None = None

    def __call__(self, call: Callable[[], Any]) -> Any:
        """What `call` returns, or raises."""
        if self._is_waited_for():
            self._until = monotonic() + _SECONDS_AFTER_A_WAIT
            return call()
        if monotonic() < self._until:
            return call()
        if self._thread is None:
            try:
                self._thread = OtherThread(give_way)
            except RuntimeError:  # no thread is left, and the loop's priority is better than no work
                return call()
        return self._thread(call)

    def close(self) -> None:
        """End the thread, which is at no call."""
        if self._thread is not None:
            self._thread.close()
            self._thread = None
