"""The processes that locks are taken for, and what is known of them."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ["Owner", "boot_id", "this_process"]

_PROGRAM = os.urandom(4).hex()


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
