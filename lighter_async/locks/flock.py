"""Locks on files that the kernel keeps, as far as a file system has them."""

from __future__ import annotations

import errno
import os
import warnings

from lighter_async.forks import Descriptors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "HAS_LOCKS",
    "OPEN",
    "NoLocks",
    "above_standard",
    "is_at",
    "own",
    "try_lock",
    "try_share",
    "unlock",
    "warn_of",
]

HAS_LOCKS = fcntl is not None
"""Whether the system has such locks; a file system may have none all the same."""

# How lock files are opened. No link is followed, and a pipe in a lock's place holds nobody up: others may write to the
# directory.
OPEN = os.O_RDWR
for _flag in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
    OPEN |= getattr(os, _flag, 0)

# What a forked child lets go of, also where another thread was about to take a lock, or was looking whether one is
# free: the child would hold it as long as it lives.
own = Descriptors()

_MISSING = frozenset(
    {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EPERM, errno.EIO, errno.ENOTTY}
)
_warned: set[tuple[str, str]] = set()


def warn_of(directory: str, what: str, weaker: str) -> None:
    """Warn once that a directory's file system lacks something, and what is weaker for that."""
    if (directory, what) not in _warned:
        _warned.add((directory, what))
        warnings.warn(
            f"the file system of {directory!r} has no {what}, so {weaker}; all else is as elsewhere",
            RuntimeWarning,
            stacklevel=2,
        )


class NoLocks(Exception):
    """The file system knows no locks."""


def try_lock(descriptor: int, path: str) -> None:
    """Lock a file.

    Raises:
        BlockingIOError: Somebody else has it.
        NoLocks: The file system has none, which was warned of, or the system, such as Windows.
    """
    if fcntl is None:
        raise NoLocks
    _flock(descriptor, path, fcntl.LOCK_EX)


def try_share(descriptor: int, path: str) -> None:
    """As `try_lock`, with a lock that several may have at once, while nobody has locked the file."""
    if fcntl is None:
        raise NoLocks
    _flock(descriptor, path, fcntl.LOCK_SH)


def _flock(descriptor: int, path: str, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        warn_of(
            os.path.dirname(os.path.dirname(os.path.abspath(path))),
            f"locks (flock: {os.strerror(error.errno)})",
            "whether a run of another machine is at work there is not known: what it leaves when it crashes is not "
            "cleared, and nobody waits for its helpers",
        )
        raise NoLocks from None


def unlock(descriptor: int) -> None:
    """Give a lock back for all that have the open file: a child that was forked meanwhile would keep it otherwise."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        except OSError:
            pass  # there are no locks here


def above_standard(descriptor: int) -> int:
    """The same file under a number that no helper takes for its standard output's."""
    if descriptor > 2 or fcntl is None:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


def is_at(descriptor: int, path: str) -> bool:
    """Whether an open file is still the one that lies at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
