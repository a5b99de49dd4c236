"""The queue's lock, and the bytes that helpers lock for as long as they live. The kernel releases both at a death."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable, Collection
from time import sleep

try:
    import fcntl
except ImportError:  # Windows, where no helper is started
    fcntl = None  # type: ignore[assignment]

__all__ = ["QueueLock"]

_FLOCK = "hhqqi4x"  # Linux's struct flock, as C aligns it
_ALIVE = 1 << 32  # where in the file each helper locks a byte for as long as it lives
_SECONDS_STOPPED, _SECONDS_STUCK = 2.0, 60.0  # that others wait for a lock whose holder stands still


class QueueLock:
    """POSIX locks on the queue's file.

    Args:
        descriptor: The file. It must stay open, and no other descriptor of it be closed, since closing any gives all of
            this process's locks away.
        processes: Tells the numbers of the helpers' processes: only they are ended if they stand still.
    """

    def __init__(self, descriptor: int, processes: Callable[[], Collection[int]]) -> None:
        self._descriptor = descriptor
        self._processes = processes

    def acquire(self) -> None:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except (BlockingIOError, PermissionError):
            self._wait()

    def release(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1)

    def _wait(self) -> None:
        """Take the lock, which nobody holds for longer than a few lines; end a helper that stands still in them."""
        delay, waited, last = 2e-5, 0.0, 0
        while True:
            sleep(delay)
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
                return
            except (BlockingIOError, PermissionError):
                pass
            delay = min(2 * delay, 0.01)
            holder = self.holder
            waited = waited + delay if holder == last else 0.0
            last = holder
            if waited > _SECONDS_STOPPED:
                self.end_if_stuck(waited)

    def end_if_stuck(self, seconds: float) -> None:
        """End the helper that holds the lock, if it is stopped, or stands still for too long.

        Args:
            seconds: How long it has held it for sure.
        """
        holder = self.holder
        if not holder or holder not in self._processes():
            return
        if seconds >= (_SECONDS_STOPPED if _is_stopped(holder) else _SECONDS_STUCK):
            try:
                os.kill(holder, signal.SIGKILL)
            except OSError:
                pass

    @property
    def holder(self) -> int:
        """The number of the process that holds the lock; 0 if none does."""
        return self._holder_of(0)

    # Being alive

    def live(self, helper: int) -> bool:
        """Hold a helper's byte until this process dies; returns whether it was free."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _ALIVE + helper)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def is_alive(self, helper: int) -> bool:
        """Whether another process holds a helper's byte."""
        return bool(self._holder_of(_ALIVE + helper))

    def _holder_of(self, place: int) -> int:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
        kind, _, _, _, process = struct.unpack(_FLOCK, fcntl.fcntl(self._descriptor, fcntl.F_GETLK, asked))
        return 0 if kind == fcntl.F_UNLCK else process


def _is_stopped(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read(1024).rpartition(b")")[2].split()[0] in b"Tt"
    except (OSError, IndexError):
        return False
