"""SIGTERM, with which schedulers announce that a job is about to be killed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from time import monotonic
from typing import Any

__all__ = ["Termination"]

_STATUS = 128 + signal.SIGTERM  # as shells report a process that it ended
_SECONDS_TO_END = 5.0  # for other handlers and Lightning's own end, after what was handed over is stored


class Termination:
    """Notes a SIGTERM, so that the loop can stop at its next batch.

    A handler that did more would run in the middle of anything: a hand-over, a collective call. The handlers that were
    there before (Lightning's sends the signal on to ranks that it has launched, and then talks to all of them) run
    when everything is stored.

    Args:
        grace: Seconds, from the signal on, for storing what was handed over.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._received: float | None = None
        self._previous: Any = None
        self._installed = False
        self._timer: threading.Timer | None = None

    def install(self) -> None:
        """Take the signal over, from the main thread; elsewhere there is none to take over."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._previous = signal.getsignal(signal.SIGTERM)
        if self._previous is None:  # not Python's to replace
            return
        signal.signal(signal.SIGTERM, self._note)
        self._installed = True

    def uninstall(self) -> None:
        """Give the signal back."""
        if self._installed and threading.current_thread() is threading.main_thread():
            self._installed = False
            if signal.getsignal(signal.SIGTERM) == self._note:
                signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: object) -> None:
        if self._received is None:
            self._received = monotonic()

    @property
    def received(self) -> bool:
        """Whether the signal came."""
        return self._received is not None

    @property
    def seconds_left(self) -> float:
        """How long what was handed over may still take to be stored."""
        return max(0.0, self._grace - (monotonic() - (self._received or monotonic())))

    def begin(self, launcher: Any) -> None:
        """Pass the signal on to ranks that this process has launched, so that they have as long as this one.

        From now on this process ends even if something in its end hangs.
        """
        if launcher is not None and hasattr(launcher, "kill"):
            launcher.kill(signal.SIGTERM)
        self._timer = threading.Timer(self.seconds_left + _SECONDS_TO_END, _end_now)
        self._timer.daemon = True
        self._timer.start()

    def leave(self) -> None:
        """Run the handlers that were there before, and end the process as the signal would.

        Raises:
            SystemExit: Always, with status 143.
        """
        self.uninstall()
        if callable(self._previous):
            self._previous(signal.SIGTERM, None)
        raise SystemExit(_STATUS)


def _end_now() -> None:
    print("lighter_async: what follows SIGTERM takes too long; ending the process now", file=sys.stderr, flush=True)
    os._exit(_STATUS)
