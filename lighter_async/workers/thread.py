"""Workers that are threads of this process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from lighter_async.types import Batch, Result, Unit
from lighter_async.workers.job import Job

__all__ = ["ThreadBackend"]


class ThreadBackend:
    """Runs a job in up to `max_workers` threads.

    The units wait in a deque of ours. Tasks on an executor, at most `max_workers` at once, take them from there until
    it is empty, and end: so an idle thread is parked in the executor, where it holds nothing of ours, and where the
    interpreter's exit finds it, which lets it finish what was put and never hangs on it.

    No unit is forgotten, for a task ends only when it saw the deque empty under the lock, and `put` looks for tasks
    under the same lock after it has filled the deque.

    Args:
        job: What is done with a unit.
        done: Called with each unit and its result, by the thread that did it, with no lock of ours held.
        max_workers: Threads at most.
    """

    def __init__(self, job: Job, done: Callable[[Unit, Result], None], max_workers: int) -> None:
        self._job = job
        self._done = done
        self._max_workers = max_workers
        self._executor = ThreadPoolExecutor(max_workers, thread_name_prefix="lighter-async")
        self._here = threading.local()
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._units: deque[Unit] = deque()
        self._tasks: set[object] = set()

    def put(self, units: Sequence[Unit]) -> None:
        with self._lock:
            self._units.extend(units)
            try:
                self._start_tasks()
            except RuntimeError:
                if not self._tasks:
                    for _ in units:
                        self._units.pop()
                    raise

    def took(self, batch: Batch) -> bool:
        with self._lock:
            return batch.begun or any(unit.batch is batch for unit in self._units)

    def wait(self, changed: threading.Condition, timeout: float | None) -> None:
        with self._lock:
            self._start_tasks()  # which a Ctrl-C in put may have prevented
        changed.wait(timeout)

    def drop(self) -> list[Unit]:
        with self._lock:
            dropped = list(self._units)
            self._units.clear()
            return dropped

    def is_worker(self) -> bool:
        return getattr(self._here, "is_worker", False)

    def stop(self) -> None:
        self._executor.shutdown()

    def _start_tasks(self) -> None:
        for _ in range(min(len(self._units), self._max_workers) - len(self._tasks)):
            task = object()
            self._executor.submit(self._run, task)
            self._tasks.add(task)

    def _run(self, task: object) -> None:
        self._here.is_worker = True
        while True:
            with self._lock:
                if not self._units:
                    self._tasks.discard(task)
                    return
                unit = self._units.popleft()
                unit.batch.begun = True
            self._done(unit, self._job.run(unit))
            # Let go before waiting for the lock: the batch's memory may be needed by whoever holds it.
            del unit
