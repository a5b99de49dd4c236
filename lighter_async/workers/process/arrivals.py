"""A thread that waits for copies from a device, so that what was handed over reaches the helpers without its caller."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from lighter_async.staging import Ready

__all__ = ["Arrivals"]


class Arrivals:
    """Calls a function each time a copy has arrived.

    Args:
        arrived: Called by the thread, with no lock of ours held.
    """

    def __init__(self, arrived: Callable[[], None]) -> None:
        self._arrived = arrived
        self._copies: SimpleQueue[Ready | None] = SimpleQueue()
        # One that a device hangs up must not hold up the interpreter's exit; a writer that is closed has none pending.
        self._thread = threading.Thread(target=self._run, name="lighter-async-arrivals", daemon=True)
        self._thread.start()

    def wait_for(self, copy: Ready) -> None:
        """Wait for one more copy, after those before it."""
        self._copies.put(copy)

    def stop(self) -> None:
        """End the thread, when nothing is on its way any more."""
        self._copies.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (copy := self._copies.get()) is not None:
            try:
                copy.synchronize()
            except Exception:
                pass  # sending the batch waits for the copy again, and fails its samples
            del copy
            self._arrived()
