"""Workers: what takes samples off the queue and has them written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lighter_async.lazily import on_first_use
from lighter_async.staging import SharedMemory
from lighter_async.types import Backend, Batch, Result
from lighter_async.workers.patience import Patience
from lighter_async.workers.quarantine import Kept, NeedsTrustError, Quarantine, kept_in
from lighter_async.workers.worker_job import Job
from lighter_async.writers import PathFunction

if TYPE_CHECKING:
    from lighter_async.workers.choice import Choice, choose_backend, choose_by_cores

__all__ = [
    "Choice",
    "Job",
    "Kept",
    "NeedsTrustError",
    "Patience",
    "Quarantine",
    "choose_by_cores",
    "choose_backend",
    "kept_in",
    "make_backend",
]

# Chosen where there may be helpers, and not by them.
__getattr__ = on_first_use(__name__, dict.fromkeys(("Choice", "choose_backend", "choose_by_cores"), "choice"))


def make_backend(
    job: Job,
    done: Callable[[Batch, Result], None],
    max_workers: int,
    *,
    memory: SharedMemory | None,
    queue_size: int,
    without_helpers: Callable[[], None] | None = None,
) -> Backend:
    """The workers that can do this job: helper processes where there is `memory` to share with them.

    Threads take over where helpers cannot be had, if there is something to call then.
    """
    # Imported where they are chosen, since a helper process, which uses other parts of this room, needs none of them.
    if memory is not None and without_helpers is not None:
        from lighter_async.workers.fallback import FallbackBackend

        return FallbackBackend(
            job, done, max_workers, memory=memory, queue_size=queue_size, without_helpers=without_helpers
        )
    if memory is not None:
        from lighter_async.workers.process.backend import ProcessBackend

        return ProcessBackend(job, done, max_workers, memory=memory, queue_size=queue_size)
    if isinstance(job.writer, PathFunction) and job.writer.is_async:
        from lighter_async.workers.event_loop import EventLoopBackend

        return EventLoopBackend(job, done, max_workers)
    from lighter_async.workers.thread import ThreadBackend

    return ThreadBackend(job, done, max_workers)
