"""Workers that are threads of this process."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from time import monotonic

from lighter_async.errors import WriteTimeoutError
from lighter_async.types import Batch, Result, Unit
from lighter_async.workers.job import Job
from lighter_async.workers.queue import UnitQueue, uninterrupted

__all__ = ["ThreadBackend"]


class _Task:
    """A thread at work: the unit in its hand, and since when it is at which sample of it."""

    __slots__ = ("index", "is_given_up", "since", "thread", "unit")

    def __init__(self) -> None:
        self.thread = 0
        self.unit: Unit | None = None
        self.index = 0
        self.since: float | None = None
        self.is_given_up = False

    def at(self, index: int | None) -> None:
        if index is None:
            self.since = None
        else:
            self.index = index
            self.since = monotonic()


class ThreadBackend(UnitQueue):
    """Runs a job in up to `max_workers` threads.

    Tasks on the executor, at most `max_workers` at once, take units until there is none, and end. No unit is forgotten,
    for a task ends only when it saw the deque empty under the lock, and `put` looks for tasks under the same lock after
    it has filled the deque.

    A thread cannot be ended. One that takes longer than `write_timeout` for a sample is given up: the sample has
    failed, the rest of its unit goes to others, and the memory that it may still read is not used again.
    """

    def __init__(self, job: Job, done: Callable[[Batch, Result], None], max_workers: int) -> None:
        super().__init__(job, done, max_workers, threads=max_workers)
        self._tasks: set[_Task] = set()  # guarded by _lock
        self._hanging = False

    def stop(self) -> None:
        self._executor.shutdown(wait=not self._hanging)

    def collect(self) -> None:
        limit = self._job.patience.write_timeout
        if limit is None:
            return
        late: list[tuple[Batch, Result]] = []
        with uninterrupted(), self._lock:
            before = monotonic() - limit
            for task in [task for task in self._tasks if task.since is not None and task.since < before]:
                unit = task.unit
                if unit is not None:
                    late.append((unit.batch, self._give_up(task, unit, limit)))
            if late:
                self._call_workers()
        for batch, result in late:
            self._done(batch, result)

    @property
    def has_failures(self) -> bool:
        return self._job.patience.write_timeout is not None

    def wait(self, changed: threading.Condition, timeout: float | None) -> None:
        super().wait(changed, timeout)
        if self._job.patience.write_timeout is not None:
            changed.release()
            try:
                self.collect()
            finally:
                changed.acquire()

    def _call_workers(self) -> None:
        lacking = min(len(self._units), self._max_workers) - len(self._tasks)
        if lacking <= 0:
            return
        with uninterrupted():
            for _ in range(lacking):
                task = _Task()
                self._executor.submit(self._run, task)
                self._tasks.add(task)

    def _at_work(self) -> bool:
        return bool(self._tasks)

    def _run(self, task: _Task) -> None:
        self._here.is_worker = True
        task.thread = threading.get_ident()
        while True:
            with self._lock:
                task.since = None
                if not self._units:
                    self._tasks.discard(task)
                    return
                unit = self._units.popleft()
                unit.batch.begun = True
                task.unit, task.index = unit, unit.start
            result = self._job.run(unit, task.at)
            with self._lock:
                task.since = task.unit = None
                if task.is_given_up:
                    return  # what it was to write is reported already
            self._done(unit.batch, result)
            # Let go before waiting for the lock: the batch's memory may be needed by whoever holds it.
            del unit

    def _give_up(self, task: _Task, unit: Unit, limit: float) -> Result:
        """Fail the sample that a thread hangs in, and have others write the rest of its unit. With the lock held."""
        frame = sys._current_frames().get(task.thread)
        stack = "" if frame is None else "".join(traceback.format_stack(frame))
        error = WriteTimeoutError(
            f"writing took longer than write_timeout={limit:g} s; its thread cannot be ended, and hangs in\n{stack}",
            stack=stack,
        )
        task.is_given_up = True
        self._tasks.discard(task)
        self._hanging = True
        unit.batch.is_kept = True
        for start, stop in ((task.index + 1, unit.stop), (unit.start, task.index)):
            if start < stop:
                self._units.appendleft(Unit(unit.batch, start, stop, again=True))
        return self._job.fail(Unit(unit.batch, task.index, task.index + 1), error, 1)
