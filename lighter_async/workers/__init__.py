"""Workers: what takes samples off the queue and has them written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from lighter_async.staging import SharedMemory
from lighter_async.types import Backend, BackendName, Batch, Result
from lighter_async.workers.patience import Patience
from lighter_async.workers.quarantine import Kept, NeedsTrustError, Quarantine, kept_in
from lighter_async.workers.worker_job import Job
from lighter_async.writers import PathFunction, Writer, is_built_in

__all__ = ["Job", "Kept", "NeedsTrustError", "Patience", "Quarantine", "choose_backend", "kept_in", "make_backend"]


def choose_backend(name: BackendName, writer: Writer, *, is_local: bool) -> Literal["thread", "process"]:
    """What the workers are to be.

    Args:
        name: What the user chose. ``"auto"`` is helper processes for this package's own encoders that store in a local
            directory, where the system has what they need, and threads otherwise.
        writer: What they run.
        is_local: Whether they store in a local directory.

    Raises:
        ValueError: It is none of the names, or cannot be had for this writer or on this system.
    """
    if name not in get_args(BackendName):
        raise ValueError(f"backend is one of {', '.join(map(repr, get_args(BackendName)))}, not {name!r}")
    from lighter_async.workers.process.launch import supported  # as in make_backend

    if name == "auto":
        return "process" if is_built_in(writer) and is_local and supported() else "thread"
    if name == "process":
        if isinstance(writer, PathFunction) and writer.is_async:
            raise ValueError(
                f"writer {writer.name!r} is an async function, which runs on an event loop of this process; leave "
                "backend at 'auto', or make it a plain function"
            )
        if not supported():
            raise ValueError("backend='process' needs Linux 5.3 or later; choose backend='thread' here")
    return name


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
