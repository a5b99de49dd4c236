"""Waiting for news of helpers, and being told of them only while somebody waits."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lighter_async.interrupts import uninterrupted
from lighter_async.types import Waiter
from lighter_async.workers.process.transport import Transport

__all__ = ["HelperNews"]


class HelperNews:
    """One thread at a time waits for news of the helpers, for all others that wait.

    Args:
        transport: The way to the helpers.
        lock: The backend's.
    """

    def __init__(self, transport: Transport, lock: threading.Lock) -> None:
        self._transport = transport
        self._lock = lock
        self._watchers = 0  # guarded by _lock
        self._post = threading.Lock()  # held by the thread that waits for all others
        self._asleep = False  # changed by the thread that holds the post

    @contextmanager
    def watch(self) -> Iterator[int | None]:
        """While it is open, helpers tell what they do; its value is a descriptor that becomes readable then.

        It is the caller's own, since an event loop watches one for one task at a time. None once helpers were let go.
        """
        with uninterrupted(), self._lock:
            # Under the lock, since another thread may close it, and its number become that of another file.
            descriptor = None if self._transport.is_closed else os.dup(self._transport.events.fileno())
        try:
            with self._watching():
                yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        self._watch(1)
        try:
            yield
        finally:
            self._watch(-1)

    def _watch(self, more: int) -> None:
        # Helpers signal only while a thread watches: signals cost both sides, and a loop that never waits polls.
        with uninterrupted(), self._lock:
            if not self._transport.is_closed:
                self._watchers += more
                self._transport.queue.watch(self._watchers)

    def wait(self, waiter: Waiter, timeout: float, has_news: Callable[[], bool]) -> bool:
        """Wait until helpers have news, the waiter is woken, or for `timeout` seconds.

        Args:
            waiter: The calling thread.
            timeout: Seconds.
            has_news: Looks whether there are any, once helpers would tell of more.

        Returns:
            Whether this thread waited for all others.
        """
        if not self._post.acquire(blocking=False):
            waiter.wait(timeout)
            return False
        try:
            # From here on waking the waiter also ends the poll; before that, `is_awake` shows it.
            self._asleep = True
            with self._watching():
                self._transport.ring_sleepers(everyone=True)
                if not has_news() and not waiter.is_awake:
                    self._transport.events.poll(timeout)
        except ValueError:
            pass  # stopped meanwhile
        finally:
            self._asleep = False
            self._post.release()
        waiter.wait(0)
        return True

    def wake(self) -> None:
        """End the wait that is under way."""
        if self._asleep:
            self._transport.wake()
