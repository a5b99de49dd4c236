"""Workers that are threads of this process."""

from __future__ import annotations

from collections.abc import Callable

from lighter_async.types import Batch, Result
from lighter_async.workers.job import Job
from lighter_async.workers.queue import UnitQueue, uninterrupted

__all__ = ["ThreadBackend"]


class ThreadBackend(UnitQueue):
    """Runs a job in up to `max_workers` threads.

    Tasks on the executor, at most `max_workers` at once, take units until there is none, and end. No unit is forgotten,
    for a task ends only when it saw the deque empty under the lock, and `put` looks for tasks under the same lock after
    it has filled the deque.
    """

    def __init__(self, job: Job, done: Callable[[Batch, Result], None], max_workers: int) -> None:
        super().__init__(job, done, max_workers, threads=max_workers)
        self._tasks: set[object] = set()  # guarded by _lock

    def stop(self) -> None:
        self._executor.shutdown()

    def _call_workers(self) -> None:
        lacking = min(len(self._units), self._max_workers) - len(self._tasks)
        if lacking <= 0:
            return
        with uninterrupted():
            for _ in range(lacking):
                task = object()
                self._executor.submit(self._run, task)
                self._tasks.add(task)

    def _at_work(self) -> bool:
        return bool(self._tasks)

    def _run(self, task: object) -> None:
        self._here.is_worker = True
        while True:
            with self._lock:
                if not self._units:
                    self._tasks.discard(task)
                    return
                unit = self._units.popleft()
                unit.batch.begun = True
            self._done(unit.batch, self._job.run(unit))
            # Let go before waiting for the lock: the batch's memory may be needed by whoever holds it.
            del unit
