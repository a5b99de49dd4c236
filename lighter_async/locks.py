"""Who is at work in a directory: a lock file for each, which the kernel releases when its processes have ended."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Owner", "RunLock", "boot_id", "is_held", "owner_of", "this_process", "wait_for_the_dead"]


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that a lock was taken for.

    Attributes:
        process: Its number.
        started: When it was started, in the kernel's own units, so that another process of that number is not it.
        boot: Which start of which machine it belongs to.
    """

    process: int
    started: str
    boot: str

    @property
    def is_dead(self) -> bool:
        """Whether it is known to have ended. Of another machine's nothing is known."""
        return self.boot == boot_id() and bool(self.boot) and _started(self.process) != self.started


def boot_id() -> str:
    """A word that no other machine, and no other start of this one, has; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def this_process() -> Owner:
    """The calling process."""
    return Owner(os.getpid(), _started(os.getpid()), boot_id())


def _started(process: int) -> str:
    """When a process was started; empty if it is gone or the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


class RunLock:
    """A lock on a file of its own.

    It belongs to the open file: children that inherit `descriptor` hold it, too, so it is free only when all of them
    have ended, whatever ended them. It is our own, and no library's, for that.

    Args:
        path: The lock file; its folder must exist.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.descriptor = -1

    def acquire(self, owner: Owner | None = None) -> bool:
        """Take it, and say whose it is; returns whether it was free.

        Raises:
            OSError: The file cannot be made, or the file system knows no locks.
        """
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        descriptor = _above_standard(os.open(self.path, flags, 0o666))
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(descriptor, self.path):
                raise BlockingIOError(errno.EAGAIN, "removed meanwhile")
            if owner is not None:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(asdict(owner)).encode(), 0)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self.descriptor = descriptor
        return True

    def release(self) -> None:
        """Remove the file and let go."""
        if self.descriptor < 0:
            return
        try:
            # In this order, so that nobody else can lock a file that is about to go.
            os.unlink(self.path)
        except OSError:
            pass
        self.forget()

    def forget(self) -> None:
        """Close the descriptor, as a forked child does: others may hold the lock still."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _above_standard(descriptor: int) -> int:
    """The same file under a number that no helper takes for its standard output's."""
    if descriptor > 2 or fcntl is None:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def owner_of(path: str) -> Owner | None:
    """Whose lock it is, as far as its file tells."""
    try:
        return Owner(**json.loads(Path(path).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def wait_for_the_dead(folder: str, ending: str, *, timeout: float) -> None:
    """Wait until nobody holds a lock of a process that has died: its helpers still store what it handed over.

    Args:
        folder: Where the lock files are.
        ending: How their names end.
        timeout: Seconds to wait in all.

    Raises:
        TimeoutError: They are still at work.
    """
    deadline = time.monotonic() + timeout
    told = time.monotonic() + 2.0
    while held := _held_by_the_dead(folder, ending):
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError(
                f"helpers of process {held[0].process}, which has died, have been storing what it handed over to "
                f"{os.path.dirname(folder)!r} for {timeout:g} s; look for what holds them up, or end them, at the cost "
                f"of what they have not stored (fuser -v {os.path.join(folder, '*' + ending)} lists them)"
            )
        if now > told:
            told = deadline
            print(
                f"lighter_async: waiting for the helpers of process {held[0].process}, which has died, to store what "
                f"it handed over to {os.path.dirname(folder)!r}",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(0.02)


def _held_by_the_dead(folder: str, ending: str) -> list[Owner]:
    try:
        files = [os.path.join(folder, file) for file in os.listdir(folder) if file.endswith(ending)]
    except OSError:
        return []
    return [owner for file in files if (owner := owner_of(file)) is not None and owner.is_dead and is_held(file)]


def is_held(path: str) -> bool:
    """Whether somebody holds the lock of a lock file."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
