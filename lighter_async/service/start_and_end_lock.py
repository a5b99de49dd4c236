"""The lock on a writer's start and end."""

from __future__ import annotations

import threading
from types import TracebackType

from lighter_async.interrupts import run_handlers

__all__ = ["StartAndEndLock"]

_SECONDS_TO_NOTICE = 0.05


class StartAndEndLock:
    """Held while a writer is started or ended, which may take long; signals are delivered meanwhile.

    So a signal's handler may ask for it that runs in the middle of just that, in the same thread, which would wait for
    itself: it is told so. The main thread takes it with signals held back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    @property
    def is_held(self) -> bool:
        return self._holder is not None

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._holder == me:
            raise RuntimeError(
                "this call came from a signal's handler that runs in the middle of the writer's start, "
                "or of the end of its close(), in the same thread, and would wait for itself; have the handler set a "
                "flag, or raise, and make the call afterwards"
            )
        while not self._lock.acquire(timeout=_SECONDS_TO_NOTICE):
            run_handlers()
        self._holder = me

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._holder = None
        self._lock.release()
