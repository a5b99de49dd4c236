"""Workers: what takes samples off the queue and has them written."""

from collections.abc import Callable

from lighter_async.types import Backend, Result, Unit
from lighter_async.workers.job import Job
from lighter_async.workers.loop import LoopBackend
from lighter_async.workers.thread import ThreadBackend
from lighter_async.writers import PathFunction

__all__ = ["Job", "LoopBackend", "ThreadBackend", "start_backend"]


def start_backend(job: Job, done: Callable[[Unit, Result], None], max_workers: int) -> Backend:
    """The workers that can do this job."""
    if isinstance(job.writer, PathFunction) and job.writer.is_async:
        return LoopBackend(job, done, max_workers)
    return ThreadBackend(job, done, max_workers)
