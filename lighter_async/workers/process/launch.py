"""Starting a helper, and knowing when it has ended."""

from __future__ import annotations

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

from lighter_async.forks import Descriptors
from lighter_async.workers.process.helper import Setting

__all__ = ["Process", "launch", "standard_descriptors", "supported"]

_SECONDS_TO_END = 30.0  # for a helper that has nothing left to do; what a user's writer left running may hold it

# A command instead of `-m`, since that would put the working folder before everything else on the path.
_COMMAND = (
    "import sys; setting, *sys.path = sys.argv[1:]; "
    "from lighter_async.workers.process.helper import main; main(setting)"
)


_APART: Any = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}


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
    """Whether this system has what helpers need: files in memory, and descriptors of processes (Linux 5.3)."""
    if not (hasattr(os, "memfd_create") and hasattr(os, "pidfd_open")) or not sys.executable:
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


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


def launch(setting: Setting, own: Descriptors, *, folder: str | None, path: Sequence[str]) -> Process:
    """Start a helper, and do not wait until it is at work.

    It sees no accelerator, and computes with one thread. Ctrl-C does not reach it, and what it prints reaches the user.

    Args:
        setting: What it is told.
        own: Takes the descriptor that tells of its end, and holds those of its files.
        folder: The working folder; None if there is none any more.
        path: Where modules are found.

    Raises:
        OSError: The system can start no more processes, or has no descriptor left.
    """
    hidden = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    # Blocked until the helper ignores them, so that no Ctrl-C finds it unready; nor can one interrupt the start.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        popen = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, setting.to_json(), *path],
            stdin=subprocess.DEVNULL,
            stdout=None if _is_open(1) else subprocess.DEVNULL,
            stderr=None if _is_open(2) else subprocess.DEVNULL,
            cwd=folder,
            env={**os.environ, **hidden, **one},
            pass_fds=[
                setting.book,
                setting.slots,
                setting.job,
                setting.failures,
                setting.stack,
                *setting.bells,
                setting.news,
                setting.tie,
                *setting.inherited,
            ],
            # A group of its own, for the terminal's signals, but no session, between which the system shares the cores
            # evenly, however much their processes give way (autogroups).
            **_APART,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    try:
        return Process(popen, own.open(os.pidfd_open, popen.pid), setting.failures, setting.stack, own)
    except OSError:
        popen.kill()
        popen.wait()
        raise
