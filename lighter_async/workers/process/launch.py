"""Starting a helper, and knowing when it has ended."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lighter_async.errors import BackendUnavailableError, describe
from lighter_async.forks import Descriptors
from lighter_async.workers.process.helper_setting import HELPER_OF, Setting
from lighter_async.workers.process.interpreter import arguments, program

try:
    import resource
except ImportError:  # Windows, where no helper is started
    resource = None  # type: ignore[assignment]

__all__ = ["Process", "check_descriptors", "launch", "needed", "standard_descriptors", "supported"]

_SECONDS_TO_END = 30.0  # for a helper that has nothing left to do; what a user's writer left running may hold it

# A command instead of `-m`, since that would put the working folder before everything else on the path. The helper goes
# to its folder by itself, for one that cannot be entered any more is no reason not to begin. What it imports stays
# until it ends, so there is no garbage to look for in it, neither while it begins nor later.
_COMMAND = """
import gc, os, sys
gc.disable()
setting, folder, *sys.path = sys.argv[1:]
try:
    os.chdir(folder)
except OSError:
    os.chdir("/")
from lighter_async.workers.process.helper import main
gc.freeze()
gc.enable()
main(setting)
"""

# A group of its own, for the terminal's signals, but no session, between which the system shares the cores evenly,
# however much their processes give way (autogroups).
_APART: dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
_FORBIDDEN = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL})

_MISSING = (OSError, MemoryError, ValueError, subprocess.SubprocessError)

_LEFT_OVER = 24  # descriptors that the job is left with: its loaders, its files, and the next helper's start need them


@dataclass(frozen=True, slots=True)
class Process:
    """A helper process.

    Attributes:
        popen: The process.
        alive: A descriptor that becomes readable when it has ended.
        failures: A file in memory where it tells what failed.
        stack_file: One where it tells where it is, when it gets SIGUSR1.
        own: Holds these descriptors.
    """

    popen: subprocess.Popen[bytes]
    alive: int
    failures: int
    stack_file: int
    own: Descriptors

    def stack(self) -> str:
        """Where all of its threads are, as text; empty if it does not tell within a second."""
        try:
            self.popen.send_signal(signal.SIGUSR1)
        except ProcessLookupError:
            return ""
        size = -1
        for _ in range(50):
            time.sleep(0.02)
            now = os.fstat(self.stack_file).st_size
            if now and now == size:
                break
            size = now
        return os.pread(self.stack_file, max(0, size), 0).decode(errors="replace")

    def has_ended(self, timeout: float) -> bool:
        """Wait for its end, for so many seconds; returns whether it has come."""
        ended = select.poll()
        ended.register(self.alive, select.POLLIN)
        return bool(ended.poll(1000 * timeout))

    def wait(self) -> int:
        """Wait until it has ended, and let go of it; returns its exit status, negative for a signal."""
        try:
            status = self.popen.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            status = self.popen.wait()
        self.close()
        return status

    def close(self) -> None:
        self.own.close(self.alive, self.failures, self.stack_file)


def supported() -> bool:
    """Whether this kind of system has what helpers need: files in memory, and descriptors of processes (Linux 5.3)."""
    return hasattr(os, "memfd_create") and hasattr(os, "pidfd_open")


@contextmanager
def needed(what: str) -> Iterator[None]:
    """While it is open: what the system refuses is said to be missing for helpers.

    Raises:
        BackendUnavailableError: The system has no room for it, or forbids it.
    """
    try:
        yield
    except BackendUnavailableError:
        raise
    except _MISSING as error:
        raise BackendUnavailableError(
            f"helper processes need {what}, which cannot be had ({describe(error)})"
        ) from error


def check_descriptors(highest: int) -> None:
    """See that enough descriptors are left for the job.

    Args:
        highest: The one that was opened last; the system gives the lowest that is free.

    Raises:
        OSError: There are too few.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and highest + _LEFT_OVER > limit:
        raise OSError(errno.EMFILE, f"{limit} descriptors are allowed (ulimit -n), and over {highest} are in use")


@contextmanager
def standard_descriptors() -> Iterator[None]:
    """While it is open: descriptors 0 to 2 are in use, so that none of ours is one of them.

    A daemon may have closed them, and in a helper they are what `print` writes to.
    """
    taken = Descriptors()
    try:
        while taken.open(os.open, os.devnull, os.O_RDWR | os.O_CLOEXEC) <= 2:
            pass
        yield
    finally:
        taken.close_all()


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def launch(setting: Setting, own: Descriptors, *, folder: str, path: Sequence[str]) -> Process:
    """Start a helper, and do not wait until it is at work.

    It sees no accelerator, and computes with one thread. Ctrl-C does not reach it, and what it prints reaches the user.

    Args:
        setting: What it is told.
        own: Takes the descriptor that tells of its end, and holds those of its files.
        folder: The working folder; if it cannot be entered, the helper works in ``/``.
        path: Where modules are found.

    Raises:
        BackendUnavailableError: It is not known how to start a Python interpreter here.
        OSError: The system can start no more processes, or has no descriptor left.
    """
    file, name = program()
    hidden = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [name, *arguments(), "-c", _COMMAND, setting.to_json(), folder, *path]
    environment = {**os.environ, **hidden, **one, HELPER_OF: str(os.getpid())}
    memory = setting.queue, setting.slots, setting.job, setting.failures, setting.stack
    given = [*memory, *setting.bells, setting.news, setting.tie]

    def start(**apart: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            executable=file,
            stdin=subprocess.DEVNULL,
            stdout=None if _is_open(1) else subprocess.DEVNULL,
            stderr=None if _is_open(2) else subprocess.DEVNULL,
            env=environment,
            pass_fds=[*given, *setting.inherited],
            **apart,
        )

    # Blocked until the helper ignores them, so that no Ctrl-C finds it unready; nor can one interrupt the start.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        try:
            popen = start(**_APART)
        except OSError as error:
            if error.errno not in _FORBIDDEN:
                raise
            popen = start()  # a sandbox may forbid groups, which are no more than a comfort
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    try:
        return Process(popen, own.open(os.pidfd_open, popen.pid), setting.failures, setting.stack, own)
    except OSError:
        popen.kill()
        popen.wait()
        raise
