"""How many cores' time the control groups of this process allow it, as a container's CPU limit does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

__all__ = ["cpu_quota", "own_cpu_quota"]

_MOST_DIGITS = 20  # of microseconds


@cache
def own_cpu_quota() -> float | None:
    """`cpu_quota` of this process, looked up once."""
    return cpu_quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))


def cpu_quota(groups: Path, mounted: Path) -> float | None:
    """The least quota of a process's control groups and those above them, in cores; None if there is none.

    Files that are not there, cannot be read, or say something else than the kernel does, are no quota.

    See https://docs.kernel.org/admin-guide/cgroup-v2.html (``cpu.max``) and
    https://docs.kernel.org/scheduler/sched-bwc.html (version 1).

    Args:
        groups: Says which groups the process is in: its ``/proc/PID/cgroup``.
        mounted: Where control groups are mounted.
    """
    found = []
    for line in _text(groups).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            found += [_version_2(folder) for folder in _upwards(mounted, path)]
        elif "cpu" in controllers.split(","):
            for name in {controllers, "cpu"}:
                found += [_version_1(folder) for folder in _upwards(mounted / name, path)]
    return min((quota for quota in found if quota is not None), default=None)


def _upwards(mounted: Path, path: str) -> Iterator[Path]:
    """The folders of a group and of those above it.

    In a container the group may have a name that is known outside only; the container's own group is mounted then.
    """
    group = PurePosixPath(path.lstrip("/"))
    if ".." not in group.parts:
        yield mounted / group
        for above in group.parents:
            yield mounted / above


def _version_2(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    return _cores(quota, period)


def _version_1(folder: Path) -> float | None:
    return _cores(_text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip())


def _cores(quota: str, period: str) -> float | None:
    # "max", and -1 in version 1, stand for no quota.
    if not all(text.isdecimal() and len(text) < _MOST_DIGITS and int(text) for text in (quota, period)):
        return None
    return int(quota) / int(period)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
