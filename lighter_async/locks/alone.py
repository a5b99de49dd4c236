"""Being the only one of all processes in a file, for a few lines."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lighter_async.locks.flock import OPEN, NoLocks, is_at, own, try_lock, unlock
from lighter_async.notices import notify

__all__ = ["alone_in", "unlink_from_copies"]

_SECONDS_ALONE = 60.0  # to wait for another process that has a file locked
_SECONDS_UNTOLD = 2.0  # after which it is said that somebody is waited for
_LONGEST_PAUSE = 0.02  # seconds between two looks


@contextmanager
def alone_in(path: str, *, waiting: Callable[[], None] = lambda: None, seconds: float | None = None) -> Iterator[int]:
    """Be the only one of all processes in a file for a few lines; gives its descriptor. The file is made.

    Where the file system knows no locks, a file beside it takes their place.

    Args:
        path: The file.
        waiting: Called again and again while another one is in it, such as `run_handlers`, if the caller holds no lock.
        seconds: How long another one may be in it; None: a minute.

    Raises:
        TimeoutError: Somebody has been in it for longer.
        OSError: The file cannot be made.
    """
    unlink_from_copies(path, waiting=waiting)
    descriptor = own.open(os.open, path, OPEN | os.O_CREAT, 0o666)
    beside = ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "something that is no file lies here; remove it", path)
        try:
            _lock(descriptor, path, waiting, seconds)
        except NoLocks:
            beside = _take_beside(f"{path}.busy", waiting)
        yield descriptor
    finally:
        unlock(descriptor)
        own.close(descriptor)
        if beside:
            try:
                os.unlink(beside)
            except OSError:
                pass


def unlink_from_copies(path: str, *, waiting: Callable[[], None] = lambda: None) -> None:
    """See to it that a file of ours has no other name: writing to it would write to a copy made of links (``cp -al``).

    Raises:
        TimeoutError: As `alone_in`, whose arguments these are.
        OSError: It has, and cannot be copied.
    """
    try:
        if os.lstat(path).st_nlink < 2:
            return
        descriptor = own.open(os.open, path, OPEN)
    except OSError:
        return  # there is none; or it cannot be opened, and the write that follows says why
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return
        try:
            _lock(descriptor, path, waiting)
        except NoLocks:
            pass
        if is_at(descriptor, path):  # else another one was quicker
            import shutil  # here, since it imports compressors

            fresh = f"{path}.{os.urandom(6).hex()}"
            with open(fresh, "xb") as copy, open(os.dup(descriptor), "rb") as file:
                shutil.copyfileobj(file, copy)
            os.replace(fresh, path)
    finally:
        unlock(descriptor)
        own.close(descriptor)


def _take_beside(path: str, waiting: Callable[[], None]) -> str:
    for _ in _looks(path, waiting):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            break
        except FileExistsError:
            continue
    return path  # if it is another one's still, that one has died in these few lines


def _lock(descriptor: int, path: str, waiting: Callable[[], None], seconds: float | None = None) -> None:
    """Lock a file, as soon as nobody else has it: that is a few lines of ours, or whoever may read it, for ever.

    Raises:
        TimeoutError: Somebody else has had it all the time.
        NoLocks: There are no locks here.
    """
    for _ in _looks(path, waiting, seconds):
        try:
            return try_lock(descriptor, path)
        except BlockingIOError:
            continue
    had = _SECONDS_ALONE if seconds is None else seconds
    raise TimeoutError(
        f"somebody has had {path!r} locked for {had:g} s, which is never done for more than a moment; "
        f"fuser -v {path} lists who has it open: end that, or let it go on if it is stopped"
    )


def _looks(path: str, waiting: Callable[[], None], seconds: float | None = None) -> Iterator[None]:
    """Moments to look again whether a file is free, until time is up. Of a long wait is told.

    Args:
        path: The file.
        waiting: Called between the looks.
        seconds: How long it may take; None: a minute.
    """
    limit = _SECONDS_ALONE if seconds is None else seconds
    begun = time.monotonic()
    told, pause = False, 0.0005
    yield
    while (waited := time.monotonic() - begun) < limit:
        if waited > _SECONDS_UNTOLD and not told:
            told = True
            notify(f"waiting for whoever has locked {path!r}")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        waiting()
        yield
