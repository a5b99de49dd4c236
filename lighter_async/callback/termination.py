"""SIGTERM, with which schedulers announce that a job is about to be killed."""

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

_STATUS = 128 + signal.SIGTERM  # as shells report a process that it ended
_SECONDS_TO_END = 5.0  # for other handlers and Lightning's own end, after what was handed over is stored


class Termination:
    """Notes a SIGTERM, so that the loop can stop at its next batch.

    A handler that did more would run in the middle of anything: a hand-over, a collective call. The handlers that were
    there before (Lightning's sends the signal on to ranks that it has launched, and then talks to all of them) run
    when everything is stored. From the signal on this process ends even if a batch, or something in its end, hangs.

    Args:
        grace: Seconds, from the signal on, for storing what was handed over.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._received: float | None = None
        self._previous: Any = None
        self._users = 0
        self._is_over = False

    def install(self, users: int = 1) -> None:
        """Take the signal over, from the main thread; elsewhere there is none to take over.

        Args:
            users: How many are to call `uninstall` until it is given back.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        self._previous = signal.getsignal(signal.SIGTERM)
        if self._previous is None:  # not Python's to replace
            return
        signal.signal(signal.SIGTERM, self._note)
        self._users = users

    def uninstall(self, *, ends: bool) -> None:
        """Give the signal back, once nobody uses it any more; and one that came too late for the loop.

        Args:
            ends: Whether to end the process then, as `leave`, and not to leave that to the earlier handlers.

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
            # Not one of `threading`, whose lock the interrupted code may hold.
            start_new_thread(self._watch, (self._grace + _SECONDS_TO_END,))

    def _watch(self, seconds: float) -> None:
        sleep(seconds)
        if not self._is_over:
            _end_now()

    @property
    def received(self) -> bool:
        """Whether the signal came."""
        return self._received is not None

    @property
    def seconds_left(self) -> float:
        """How long what was handed over may still take to be stored."""
        return max(0.0, self._grace - (monotonic() - (self._received or monotonic())))

    def begin(self, launcher: Any) -> None:
        """Pass the signal on to ranks that this process has launched, so that they have as long as this one."""
        if launcher is not None and hasattr(launcher, "kill"):
            launcher.kill(signal.SIGTERM)

    def leave(self) -> None:
        """Run the handlers that were there before, and end the process as the signal would.

        Raises:
            SystemExit: Always, with status 143.
        """
        # Ours stays while they run: rank 0's earlier one signals the other ranks once more, and theirs would begin a
        # second talk in the middle of the first.
        if callable(self._previous):
            try:
                self._previous(signal.SIGTERM, None)
            except Exception as error:
                # Such as of a talk with a rank that has ended already.
                print(f"lighter_async: a handler of SIGTERM failed: {describe(error)}", file=sys.stderr, flush=True)
        self._users = 0
        self._restore()
        raise SystemExit(_STATUS)


def _end_now() -> None:
    print("lighter_async: what followed SIGTERM took too long; ending the process now", file=sys.stderr, flush=True)
    os._exit(_STATUS)
