"""SIGTERM, with which schedulers announce that they will kill a job."""

from __future__ import annotations

import os
import signal
import sys
import threading
from _thread import start_new_thread
from time import monotonic, sleep
from typing import Any

from lighter_async.errors import describe

__all__ = ["Termination"]

_STATUS = 128 + signal.SIGTERM  # as shells report a process that the signal has ended
_SECONDS_TO_END = 5.0  # for other handlers and Lightning's own end, once everything is stored


class Termination:
    """Notes a SIGTERM, so that the loop can stop at its next batch.

    A handler that did more could interrupt anything: a hand-over, or a collective call. Earlier handlers run once
    everything is stored (Lightning's passes the signal on to the ranks that it has launched, and then communicates with
    all of them). From the signal on, the process ends in time even if a batch, or something at the end, hangs.

    Args:
        grace: Seconds from the signal on, in which to store what was handed over.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._received: float | None = None
        self._previous: Any = None
        self._users = 0
        self._is_over = False

    def install(self, users: int = 1) -> None:
        """Handle the signal from now on. Does nothing outside of the main thread, which alone can install handlers.

        Args:
            users: The number of calls of `uninstall` after which the earlier handler is restored.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        self._previous = signal.getsignal(signal.SIGTERM)
        if self._previous is None:  # not Python's to replace
            return
        signal.signal(signal.SIGTERM, self._note)
        self._users = users

    def uninstall(self, *, ends: bool) -> None:
        """Restore the earlier handler at the last call, and handle a signal that came too late for the loop.

        Args:
            ends: Whether to end the process after such a signal, as `leave` does. Otherwise the earlier handler gets
                it.

        Raises:
            SystemExit: With status 143.
        """
        self._users -= 1
        if self._users or threading.current_thread() is not threading.main_thread():
            return
        if self.received and ends:
            self.leave()
        self._restore()
        if self.received:
            self._is_over = True
            signal.raise_signal(signal.SIGTERM)

    def _restore(self) -> None:
        if signal.getsignal(signal.SIGTERM) == self._note:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: object) -> None:
        if self._received is None:
            self._received = monotonic()
            # Not a `threading.Thread`: the interrupted code may hold a lock of that module.
            start_new_thread(self._watch, (self._grace + _SECONDS_TO_END,))

    def _watch(self, seconds: float) -> None:
        sleep(seconds)
        if not self._is_over:
            _end_now()

    @property
    def received(self) -> bool:
        """Whether the signal has come."""
        return self._received is not None

    @property
    def seconds_left(self) -> float:
        """How long storing may still take."""
        return max(0.0, self._grace - (monotonic() - (self._received or monotonic())))

    def begin(self, launcher: Any) -> None:
        """Pass the signal on to the ranks that this process has launched, so that they have as much time."""
        if launcher is not None and hasattr(launcher, "kill"):
            launcher.kill(signal.SIGTERM)

    def leave(self) -> None:
        """Run the earlier handler, and end the process as the signal would.

        Raises:
            SystemExit: Always, with status 143.
        """
        # Our handler stays meanwhile: rank 0's earlier handler signals the other ranks once more, and theirs would
        # begin a second communication in the middle of the first.
        if callable(self._previous):
            try:
                self._previous(signal.SIGTERM, None)
            except Exception as error:
                # For example since another rank has ended already.
                print(f"lighter_async: a handler of SIGTERM failed: {describe(error)}", file=sys.stderr, flush=True)
        self._users = 0
        self._restore()
        raise SystemExit(_STATUS)


def _end_now() -> None:
    print("lighter_async: what followed SIGTERM took too long; ending the process now", file=sys.stderr, flush=True)
    os._exit(_STATUS)
