"""What a writer allows itself by default, on this machine and beside the other ranks of its job."""

from __future__ import annotations

import os
from pathlib import Path

from lighter_async.cpu_quota import own_cpu_quota

__all__ = [
    "DEFAULT_ATTEMPTS",
    "DEFAULT_QUEUE_SIZE",
    "MOST_OUTPUTS",
    "MOST_QUEUED",
    "allowed_cores",
    "default_queue_bytes",
    "default_workers",
    "memory_bytes",
    "usable_cores",
]

DEFAULT_QUEUE_SIZE = 8192
"""Samples in a queue that its bytes are to bound, unless samples are tiny.

What is kept of a sample besides its value counts as no bytes: 0.3 kB in a batch, up to 7.3 kB of one that was handed
over by itself. Of so many samples it is less than the least default of `queue_bytes`.
"""

DEFAULT_ATTEMPTS = 4

MOST_OUTPUTS = 64
"""Outputs of a sample: as many as readers of the manifest take of a line."""

MOST_QUEUED = 1 << 20
"""Samples that may be queued for helper processes: their queue has a place for each."""

_MEBI = 1 << 20
_MOST_WORKERS = 4
_LEAST_QUEUE_BYTES = 64 * _MEBI
_MOST_QUEUE_BYTES = 1024 * _MEBI


def allowed_cores() -> int:
    """Cores that this process may run on, whatever a container's CPU limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores() -> int:
    """Cores that this process may run on, or as many as a container's CPU limit allows where that is less."""
    cores, quota = allowed_cores(), own_cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or its container's where that is less."""
    found = [8 << 30]
    if hasattr(os, "sysconf"):
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    # The control group's limit, version 2 and 1, where a container sees its own as the root.
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(file).read_text()))
        except (OSError, ValueError):
            continue  # not there, or "max"
    return min(found)


def default_workers(local_ranks: int | None = None) -> int:
    """One worker per core, at most four, the cores being shared with the job's other ranks on this machine.

    Args:
        local_ranks: How many ranks there are on this machine. None takes `LOCAL_WORLD_SIZE`, which torchrun sets, or 1.
    """
    if local_ranks is None:
        local = os.environ.get("LOCAL_WORLD_SIZE", "")
        local_ranks = int(local) if local.isdecimal() else 1
    return max(1, min(_MOST_WORKERS, usable_cores() // max(1, local_ranks)))


def default_queue_bytes() -> int:
    """A thirty-second of the memory, at least 64 MiB and at most 1 GiB.

    So eight ranks with two writers each take half of the memory at most.
    """
    return max(_LEAST_QUEUE_BYTES, min(_MOST_QUEUE_BYTES, memory_bytes() // 32))
