"""How much of the cores other programs use, between two looks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

__all__ = ["CoresInUse", "Look", "in_use", "in_use_since", "look"]

_PROC = Path("/proc")
_LEAST_SECONDS = 0.25  # between two looks: the kernel counts in hundredths of a second, and anybody may be busy for one
_RECENT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Look:
    """Processor time until a moment, in seconds.

    Attributes:
        process: The process that looked.
        moment: When, by a clock that only goes forwards.
        cores: The cores that the process may run on.
        all: What all programs have used of these cores since the machine's start.
        own: What this process has used, and those that it has started.
    """

    process: int
    moment: float
    cores: frozenset[int]
    all: float
    own: float


@dataclass(frozen=True, slots=True)
class CoresInUse:
    """How many cores were in use, on average.

    Attributes:
        cores: How many there are for this process, whatever its container's CPU limit.
        own: Used by this process, and those that it has started.
        others: Used by other programs.
    """

    cores: int
    own: float
    others: float

    @property
    def idle(self) -> float:
        """Used by nobody."""
        return max(0.0, self.cores - self.own - self.others)


def look(proc: Path = _PROC) -> Look | None:
    """Look at what was used until now; None where the system does not tell, as on other systems than Linux.

    See https://docs.kernel.org/filesystems/proc.html (``stat``, ``PID/stat``, ``PID/task/TID/children``).

    Args:
        proc: Where the kernel tells it.
    """
    try:
        cores = frozenset(os.sched_getaffinity(0))
        tick = 1.0 / os.sysconf("SC_CLK_TCK")
        moment = monotonic()
        used = sum(_used(line) for line in (proc / "stat").read_text().splitlines() if _core(line) in cores)
        own = sum(_of_process(proc, process) for process in _own_processes(proc))
    except (AttributeError, OSError, ValueError, IndexError):
        return None
    return Look(os.getpid(), moment, cores, used * tick, own * tick)


def in_use(before: Look | None, after: Look | None) -> CoresInUse | None:
    """What was used between two looks; None where that cannot be told.

    It cannot where a look failed, where less than a quarter of a second lies between them, where a fork does, or where
    the process was given other cores meanwhile.
    """
    if before is None or after is None or (before.process, before.cores) != (after.process, after.cores):
        return None
    seconds = after.moment - before.moment
    if seconds < _LEAST_SECONDS:
        return None
    own = max(0.0, after.own - before.own) / seconds
    others = max(0.0, after.all - before.all) / seconds - own
    cores = len(after.cores)
    return CoresInUse(cores, min(own, cores), max(0.0, min(others, cores)))


def in_use_since(before: Look | None) -> CoresInUse | None:
    """What was used since a look; None where that cannot be told.

    If that was just now, as where a writer is made and used at once, it is what was used since this package was
    imported, unless that is more than a minute ago.
    """
    now = look()
    used = in_use(before, now)
    if used is not None or now is None or _at_import is None:
        return used
    return in_use(_at_import, now) if now.moment - _at_import.moment < _RECENT_SECONDS else None


def _core(line: str) -> int:
    """The core that a line of ``/proc/stat`` is about; -1 if it is about something else."""
    number = line.partition(" ")[0].removeprefix("cpu")
    return int(number) if line.startswith("cpu") and number.isdecimal() else -1


def _used(line: str) -> int:
    # Time that a virtual machine's host has taken counts as used, since nobody here could have it.
    user, nice, system, _, _, interrupts, soft, stolen = map(int, line.split()[1:9])
    return user + nice + system + interrupts + soft + stolen


def _own_processes(proc: Path) -> list[str]:
    """This process, and those that it has started, and theirs; this one alone where the kernel does not tell."""
    found = ["self"]
    for process in found:
        for children in (proc / process / "task").glob("*/children"):
            try:
                found += children.read_text().split()
            except OSError:
                continue  # it has ended
    return found


def _of_process(proc: Path, process: str) -> int:
    """User and system time, of the process and of its children that have ended, in the kernel's ticks."""
    try:
        fields = (proc / process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        if process == "self":
            raise
        return 0  # it has ended
    return sum(map(int, fields[11:15]))


_at_import = look()
