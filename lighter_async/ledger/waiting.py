"""Waiting for a change of the books: threads, backends and event loops, and how each is woken."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

from lighter_async.errors import ClosedError
from lighter_async.interrupts import is_interrupted, run_handlers, waking
from lighter_async.types import Waiter

__all__ = ["Bell", "Changes", "Parked"]

_SECONDS_TO_NOTICE = 0.1


class Parked:
    """A thread that waits for a change of the books."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        """End the wait that is under way, or the next one."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it is awake already

    @property
    def is_awake(self) -> bool:
        """Whether it was woken since it waited last."""
        return not self._lock.locked()

    def wait(self, timeout: float) -> None:
        """Wait until it is woken, or for `timeout` seconds."""
        self._lock.acquire(timeout=timeout)


class Bell:
    """Rings when the books change: a socket that becomes readable, for event loops."""

    def __init__(self) -> None:
        self.socket, self._ringer = socket.socketpair()
        self.socket.setblocking(False)
        self._ringer.setblocking(False)

    def ring(self) -> None:
        try:
            self._ringer.send(b"!")
        except OSError:
            pass  # so many rings are unread that no more fits, or nobody listens any more

    def silence(self) -> None:
        """Be quiet until the next ring."""
        try:
            while self.socket.recv(4096):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        self.socket.close()
        self._ringer.close()


def _wait(waiter: Waiter, timeout: float) -> None:
    waiter.wait(timeout)


def _wake() -> None:
    """Without a backend there is nothing beside the waiters that would have to be woken."""


class Changes:
    """Everybody who is told of a change of the books.

    The ledger's lock guards it: every method but `wait_on` and `run_handlers` is called with the lock held, and these
    two without it.

    Args:
        location: Where the samples go, for messages.
    """

    def __init__(self, location: str) -> None:
        self._location = location
        self._process = os.getpid()
        self._backend_wait: Callable[[Waiter, float], None] = _wait
        self._wake_backend: Callable[[], None] = _wake
        self.waiters: list[Parked] = []
        self._bells: tuple[Bell, ...] = ()

    def use(self, wait: Callable[[Waiter, float], None], wake: Callable[[], None]) -> None:
        """Wait with the backend's `wait` from now on, which its `wake` ends."""
        self._backend_wait = wait
        self._wake_backend = wake

    def forked(self) -> None:
        self._process = os.getpid()

    def notify(self) -> None:
        """Wake all who wait."""
        for waiter in self.waiters:
            waiter.wake()
        self._wake_backend()
        # Under the lock, so that no bell is closed meanwhile: its descriptor's number may be another socket's by then.
        for bell in self._bells:
            bell.ring()

    def add_waiter(self) -> Parked:
        waiter = Parked()
        self.waiters.append(waiter)
        return waiter

    def remove_waiter(self, waiter: Parked) -> None:
        self.waiters.remove(waiter)
        # One waiter at a time waits at the backend. If it was this one, another has to take its place there; and where
        # this one has left the line for a reservation, it may be another one's turn.
        if self.waiters:
            self.notify()

    def add_bell(self) -> Bell:
        bell = Bell()
        self._bells += (bell,)
        return bell

    def remove_bell(self, bell: Bell) -> None:
        self._bells = tuple(other for other in self._bells if other is not bell)

    def wait_on(self, waiter: Parked, timeout: float | None) -> bool:
        """Wait for a change, for a moment at most; returns whether signals' handlers are to run now."""

        def wake() -> None:
            waiter.wake()
            self._wake_backend()

        # In slices: the interpreter overlooks a signal that comes just before its thread begins to wait.
        timeout = _SECONDS_TO_NOTICE if timeout is None else min(timeout, _SECONDS_TO_NOTICE)
        with waking(wake) as held:
            if not held:
                self._backend_wait(waiter, timeout)
        return is_interrupted()

    def run_handlers(self) -> None:
        """Run the handlers of the signals that were held back during a wait.

        Raises:
            ClosedError: A handler has forked, and this is the child.
        """
        run_handlers()
        if self._process != os.getpid():
            raise ClosedError(
                f"a signal's handler has forked, and this is the child, where nobody stores to {self._location!r}; "
                "end it in the handler"
            )
