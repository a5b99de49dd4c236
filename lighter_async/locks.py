"""Who is at work in a directory: a lock file for each, which the kernel releases when its processes have ended."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lighter_async.interrupts import run_handlers
from lighter_async.notices import notify

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from lighter_async.forks import Descriptors

__all__ = [
    "LOCK_ENDING",
    "Owner",
    "RunLock",
    "alone_in",
    "boot_id",
    "held_by",
    "is_held",
    "owner_of",
    "this_process",
    "wait_for_orphaned_helpers",
    "warn_of",
]

LOCK_ENDING = ".lock"
"""How the names of lock files end; they begin with the token that is part of their writer's temporary names."""

_LARGEST = 4096  # bytes of a lock file that are read
_SECONDS_ALONE = 60.0  # to wait for whoever is alone in a file
_SECONDS_UNTOLD = 2.0  # after which it is said that somebody is waited for
_LONGEST_PAUSE = 0.02  # seconds between two looks
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


class _NoLocks(Exception):
    """The file system knows no locks."""


def _flock(descriptor: int, path: str, operation: int) -> None:
    """Lock a file, where there are locks.

    Raises:
        BlockingIOError: Somebody else has it, and `operation` does not wait.
        _NoLocks: There are none, which was warned of.
    """
    try:
        fcntl.flock(descriptor, operation)
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
        raise _NoLocks from None


def _unlock(descriptor: int) -> None:
    """Give a lock back for all that have the open file: a child that was forked meanwhile would keep it otherwise."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        except OSError:
            pass  # there are no locks here


def _looks(path: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Moments to look again whether a file is free, until time is up. Of a long wait is told.

    Args:
        path: The file.
        waiting: Called between the looks.
    """
    begun = time.monotonic()
    told, pause = False, 0.0005
    yield
    while (waited := time.monotonic() - begun) < _SECONDS_ALONE:
        if waited > _SECONDS_UNTOLD and not told:
            told = True
            notify(f"waiting for whoever has locked {path!r}")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        waiting()
        yield


def _lock(descriptor: int, path: str, waiting: Callable[[], None]) -> None:
    """Lock a file, as soon as nobody else has it: that is a few lines of ours, or whoever may read it, for ever.

    Raises:
        TimeoutError: Somebody else has had it all the time.
        _NoLocks: There are no locks here.
    """
    for _ in _looks(path, waiting):
        try:
            return _flock(descriptor, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
    raise TimeoutError(
        f"somebody has had {path!r} locked for {_SECONDS_ALONE:g} s, which is never done for more than a moment; "
        f"fuser -v {path} lists who has it open: end that, or let it go on if it is stopped"
    )


@contextmanager
def alone_in(path: str, *, waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Be the only one of all processes in a file for a few lines; gives its descriptor. The file is made.

    Where the file system knows no locks, a file beside it takes their place.

    Args:
        path: The file.
        waiting: Called again and again while another one is in it, such as `run_handlers`, if the caller holds no lock.

    Raises:
        TimeoutError: Somebody has been in it for a minute.
        OSError: The file cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_NONBLOCK", 0)  # a pipe in its place must hold nobody up
    unlink_from_copies(path, waiting=waiting)
    descriptor = _own.open(os.open, path, flags, 0o666)
    beside = ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "something that is no file lies here; remove it", path)
        if fcntl is not None:
            try:
                _lock(descriptor, path, waiting)
            except _NoLocks:
                beside = _take_beside(f"{path}.busy", waiting)
        yield descriptor
    finally:
        _unlock(descriptor)
        _own.close(descriptor)
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
        descriptor = _own.open(os.open, path, _OPEN)
    except OSError:
        return  # there is none; or it cannot be opened, which whoever is to write to it tells
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return
        if fcntl is not None:
            try:
                _lock(descriptor, path, waiting)
            except _NoLocks:
                pass
        if _is_at(descriptor, path):  # else another one was quicker
            fresh = f"{path}.{secrets.token_hex(6)}"
            with open(fresh, "xb") as copy, open(os.dup(descriptor), "rb") as file:
                shutil.copyfileobj(file, copy)
            os.replace(fresh, path)
    finally:
        _unlock(descriptor)
        _own.close(descriptor)


def _take_beside(path: str, waiting: Callable[[], None]) -> str:
    for _ in _looks(path, waiting):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            break
        except FileExistsError:
            continue
    return path  # if it is another one's still, that one has died in these few lines


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that a lock was taken for.

    Attributes:
        process: Its number.
        started: When it was started, in the kernel's own units, so that another process of that number is not it.
        boot: Which start of which machine it belongs to.
        namespace: The kernel's name for what process numbers count in there; another container has another one. Empty
            where it is not known.
        run: The id of its run.
        program: A word of the program in it, which `os.execv` replaces by another one.
    """

    process: int
    started: str
    boot: str
    namespace: str = ""
    run: str = ""
    program: str = ""

    @property
    def is_earlier_program(self) -> bool:
        """Whether it is what ran in this process before `os.execv`; its helpers may be at work still."""
        me = this_process(self.run)
        return (
            bool(me.boot and me.started)
            and self.program not in ("", _PROGRAM)
            and replace(me, program=self.program) == self
        )

    @property
    def is_dead(self) -> bool:
        """Whether it is known to have ended. Of another machine's, or another container's, nothing is known."""
        return (
            bool(self.boot and self.started)
            and self.boot == boot_id()
            and self.namespace in ("", _namespace())
            and _has_ended(self.process, self.started)
        )

    @property
    def is_alive(self) -> bool:
        """Whether it is known to be at work."""
        return (
            bool(self.started)
            and self.boot == boot_id()
            and self.namespace == _namespace()
            and _started(self.process) == self.started
            and not self.is_dead
        )

    @property
    def is_elsewhere(self) -> bool:
        """Whether it belongs to another machine, or to this one before it was started again: nobody here can tell."""
        return bool(self.boot) and self.boot != boot_id()


def boot_id() -> str:
    """A word that no other machine, and no other start of this one, has; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def this_process(run: str = "") -> Owner:
    """The calling process, for a run."""
    return Owner(os.getpid(), _started("self"), boot_id(), _namespace(), run, _PROGRAM)


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _has_ended(process: int, started: str) -> bool:
    """Whether a process of this namespace has ended for sure."""
    try:
        os.kill(process, 0)
    except OverflowError:
        return True
    except OSError as error:
        return error.errno == errno.ESRCH  # else it is another user's
    try:
        numbers_are_ours = os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False
    if not numbers_are_ours:  # a container that sees the processes of the system around it
        return False
    now = _started(process)
    # What is there and tells nothing is hidden (hidepid), or another user's.
    return now != started and (bool(now) or _is_zombie(process))


def _is_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return False


def _started(process: int | str) -> str:
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
        descriptor = _own.open(lambda: _above_standard(os.open(self.path, _OPEN | os.O_CREAT, 0o666)))
        try:
            if fcntl is not None:
                try:
                    _flock(descriptor, self.path, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except _NoLocks:
                    if owner is None and not _is_of_the_dead(self.path):
                        raise BlockingIOError(errno.EAGAIN, "nobody knows whether it is held") from None
            if not _is_at(descriptor, self.path):
                raise BlockingIOError(errno.EAGAIN, "removed meanwhile")
            if owner is not None:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(asdict(owner)).encode(), 0)
            self.descriptor = descriptor
        except BlockingIOError:
            return False
        finally:
            if self.descriptor < 0:
                _own.close(descriptor)
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
            _own.close(descriptor)


# What a forked child lets go of, also where another thread was about to take a lock, or was looking whether one is
# free: the child would hold it as long as it lives.
_own = Descriptors()

_PROGRAM = secrets.token_hex(4)


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


# No link is followed, and a pipe in a lock's place holds nobody up: others may write to the directory.
_OPEN = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def owner_of(path: str) -> Owner | None:
    """Whose lock it is, as far as its file tells."""
    try:
        descriptor = os.open(path, _OPEN)
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
    for path in _lock_files(folder):
        owner = owner_of(path)
        if owner is not None and is_held(path):
            found.append(owner.run)
    return found


def _lock_files(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, file) for file in os.listdir(folder) if file.endswith(LOCK_ENDING)]
    except OSError:
        return []


def wait_for_orphaned_helpers(folder: str, *, timeout: float) -> None:
    """Wait until nobody holds a lock of a process that has died: its helpers still store what it handed over.

    Args:
        folder: Where the lock files are.
        timeout: Seconds to wait in all.

    Raises:
        TimeoutError: They are still at work.
    """
    deadline = time.monotonic() + timeout
    told = time.monotonic() + 2.0
    while held := _held_by_the_dead(folder):
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError(
                f"helpers of process {held[0].process}, which has died, have been storing what it handed over to "
                f"{os.path.dirname(folder)!r} for {timeout:g} s; look for what holds them up, or end them, at the cost "
                f"of what they have not stored (fuser -v {os.path.join(folder, '*' + LOCK_ENDING)} lists them)"
            )
        if now > told:
            told = deadline
            notify(
                f"waiting for the helpers of process {held[0].process}, which has died, to store what "
                f"it handed over to {os.path.dirname(folder)!r}",
            )
        time.sleep(0.02)
        run_handlers()


def _held_by_the_dead(folder: str) -> list[Owner]:
    owners = [(path, owner_of(path)) for path in _lock_files(folder)]
    return [
        owner
        for path, owner in owners
        if owner is not None and (owner.is_dead or owner.is_earlier_program) and is_held(path)
    ]


def is_held(path: str) -> bool:
    """Whether somebody holds the lock of a lock file; where there are no locks, whether its owner may be alive."""
    if fcntl is None:
        return False
    try:
        descriptor = _own.open(os.open, path, _OPEN)
    except OSError:
        return False
    try:
        _flock(descriptor, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except _NoLocks:
        owner = owner_of(path)
        return owner is not None and not owner.is_dead
    except OSError:
        return True
    else:
        _unlock(descriptor)
    finally:
        _own.close(descriptor)
    return False
