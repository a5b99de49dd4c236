"""How long processes ran, and how long they were ready to run and got no core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ProcessorTime", "between", "processor_times"]

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessorTime:
    """Of a process, or of several together, in seconds.

    Attributes:
        ran: On a core.
        waited: Ready to run, without one.
    """

    ran: float
    waited: float


def processor_times(processes: Iterable[int], proc: Path = _PROC) -> dict[int, ProcessorTime]:
    """What processes have had since they began. Those of which the system does not tell are left out.

    It tells of each thread: https://docs.kernel.org/scheduler/sched-stats.html (``PID/task/TID/schedstat``).

    Args:
        processes: Which ones.
        proc: Where the kernel tells it.
    """
    found = {}
    for process in processes:
        try:
            threads = [path.read_text().split()[:2] for path in (proc / str(process) / "task").glob("*/schedstat")]
            if threads:
                ran, waited = (sum(map(int, times)) / 1e9 for times in zip(*threads, strict=True))
                found[process] = ProcessorTime(ran, waited)
        except (OSError, ValueError):
            continue  # it has ended, or there is no such file
    return found


def between(before: Mapping[int, ProcessorTime], after: Mapping[int, ProcessorTime]) -> ProcessorTime:
    """What the processes that were there both times had meanwhile, together."""
    both = [(before[process], after[process]) for process in before.keys() & after.keys()]
    return ProcessorTime(
        sum(late.ran - early.ran for early, late in both), sum(late.waited - early.waited for early, late in both)
    )
