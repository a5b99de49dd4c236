"""The lock that a writer holds in its directory as long as it is open, and what others learn from it."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict

from lighter_async.locks.flock import HAS_LOCKS, OPEN, NoLocks, above_standard, is_at, own, try_lock, unlock
from lighter_async.locks.owner import Owner
from lighter_async.positioned import write_to

__all__ = ["LOCK_ENDING", "RunLock", "held_by", "is_held", "lock_files", "owner_of"]

LOCK_ENDING = ".lock"
"""How the names of lock files end; they begin with the token that is part of their writer's temporary names."""

# The paths of those that are held: all that is known on a system without locks.
_of_this_process: set[str] = set()

_LARGEST = 4096  # bytes of a lock file that are read


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
        descriptor = own.open(lambda: above_standard(os.open(self.path, OPEN | os.O_CREAT, 0o666)))
        try:
            try:
                try_lock(descriptor, self.path)
            except NoLocks:
                if HAS_LOCKS and owner is None and not _is_of_the_dead(self.path):
                    raise BlockingIOError(errno.EAGAIN, "nobody knows whether it is held") from None
            if not is_at(descriptor, self.path):
                raise BlockingIOError(errno.EAGAIN, "removed meanwhile")
            if owner is not None:
                os.ftruncate(descriptor, 0)
                write_to(descriptor, [json.dumps(asdict(owner)).encode()], 0)
            self.descriptor = descriptor
            _of_this_process.add(self.path)
        except BlockingIOError:
            return False
        finally:
            if self.descriptor < 0:
                own.close(descriptor)
        return True

    def release(self) -> None:
        """Remove the file and let go."""
        if self.descriptor < 0:
            return
        if not HAS_LOCKS:
            self.forget()  # Windows removes no file that is open
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
            _of_this_process.discard(self.path)
            own.close(descriptor)


def owner_of(path: str) -> Owner | None:
    """Whose lock it is, as far as its file tells."""
    try:
        descriptor = os.open(path, OPEN)
    except OSError:
        return None
    try:
        owner = Owner(**json.loads(os.read(descriptor, _LARGEST)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    finally:
        os.close(descriptor)
    words = owner.started, owner.boot, owner.namespace, owner.run, owner.program
    return owner if type(owner.process) is int and all(type(word) is str for word in words) else None


def _is_of_the_dead(path: str) -> bool:
    owner = owner_of(path)
    return owner is not None and owner.is_dead


def held_by(folder: str) -> list[str]:
    """The ids of the runs that are at work in a folder's directory, as far as this machine knows."""
    found = []
    for path in lock_files(folder):
        owner = owner_of(path)
        if owner is not None and is_held(path):
            found.append(owner.run)
    return found


def lock_files(folder: str) -> list[str]:
    """The paths of the lock files in a folder."""
    try:
        return [os.path.join(folder, file) for file in os.listdir(folder) if file.endswith(LOCK_ENDING)]
    except OSError:
        return []


def is_held(path: str) -> bool:
    """Whether somebody holds the lock of a lock file.

    On a file system without locks: whether its owner may be alive; on a system without: whether this process does.
    """
    if not HAS_LOCKS:
        return path in _of_this_process
    try:
        descriptor = own.open(os.open, path, OPEN)
    except OSError:
        return False
    try:
        try_lock(descriptor, path)
    except NoLocks:
        owner = owner_of(path)
        return owner is not None and not owner.is_dead
    except OSError:
        return True
    else:
        unlock(descriptor)
    finally:
        own.close(descriptor)
    return False
