"""Workers that are threads of this process."""

from __future__ import annotations

import gc
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from time import monotonic

from lighter_async.errors import LighterAsyncError, WriteTimeoutError
from lighter_async.interrupts import run_handlers, uninterrupted
from lighter_async.targets import Lane
from lighter_async.types import Batch, Result, Unit, Waiter
from lighter_async.workers.queue import UnitQueue
from lighter_async.workers.storing import Abandoned
from lighter_async.workers.worker_job import Job
from lighter_async.workers.writing import fail_unit, write_unit

__all__ = ["ThreadBackend"]

_SECONDS_TO_SEAL = 0.05  # after which tasks that hang are looked for


class _Task:
    """A thread at work: the unit in its hand, which sample of it it is at, and since when."""

    __slots__ = ("ident", "is_abandoned", "is_to_seal", "place", "unit")

    def __init__(self) -> None:
        self.ident = 0
        self.unit: Unit | None = None
        # One field, so that index and time are of one sample also when it is read or changed without the lock.
        self.place: tuple[int, float] | None = None
        self.is_abandoned = False
        self.is_to_seal = False

    def on_progress(self, index: int | None) -> None:
        if self.is_abandoned:
            raise Abandoned
        self.place = None if index is None else (index, monotonic())


class ThreadBackend(UnitQueue):
    """Runs a job in up to `max_workers` threads.

    Tasks on the executor, at most `max_workers` at once, take units until there is none, and end. No unit is forgotten,
    for a task ends only when it saw the deque empty under the lock, and `put` looks for tasks under the same lock after
    it has filled the deque.

    A thread cannot be ended. One that takes longer than `write_timeout` for a sample is abandoned: the sample has
    failed, the rest of its unit goes to others, and the memory that it may still read is not used again. So with a
    `write_timeout` the threads are not an executor's, for the interpreter's exit would wait for one that hangs; what
    was handed over is stored before all the same, for writers that nobody closed are closed then.
    """

    def __init__(self, job: Job, done: Callable[[Batch, Result], None], max_workers: int) -> None:
        super().__init__(job, done, max_workers, threads=max_workers)
        # Guarded by _lock:
        self._tasks: set[_Task] = set()
        # Lanes that no task has now. An abandoned task keeps its own, which may be half through a sample.
        self._lanes: list[Lane] = []
        self._lanes_made = 0
        self._sealed = threading.Condition(self._lock)  # rung when a task has sealed its lane, or is gone
        self._loose: dict[threading.Thread, _Task] = {}

    def seal(self) -> None:
        with self._lock:
            # Nobody else takes these lanes meanwhile. Each task seals its own lane before its next unit.
            lanes, self._lanes = self._lanes, []
            asked = list(self._tasks)
            for task in asked:
                task.is_to_seal = True
        for lane in lanes:
            self._job.session.seal(lane)
        with self._lock:
            self._lanes += lanes
        while True:
            with self._lock:
                if self._sealed.wait_for(lambda: not self._have_to_seal(asked), _SECONDS_TO_SEAL):
                    return
            run_handlers()
            self.collect()

    def _have_to_seal(self, tasks: Sequence[_Task]) -> bool:
        return any(task.is_to_seal and task in self._tasks for task in tasks)

    def stop(self, *, seal: bool = True) -> None:
        self._executor.shutdown()
        with self._lock:
            threads = [thread for thread, task in self._loose.items() if not task.is_abandoned]
        for thread in threads:
            thread.join()
        # Not those of threads that hang, which may still write: the next writer that opens the target takes them over.
        with self._lock:
            lanes, self._lanes = self._lanes, []
        if seal and not lanes and self._job.takes_arrays:
            lanes = [self._job.session.lane(0)]  # nothing was left to do but to give the array its name
        for lane in lanes:
            if seal:
                self._job.session.seal(lane)
            lane.close()

    def collect(self, *, quickly: bool = False) -> None:
        limit = self._job.patience.write_timeout
        if limit is None:
            return
        late: list[tuple[Batch, Result]] = []
        with uninterrupted():
            with self._lock:
                before = monotonic() - limit
                for task in list(self._tasks):
                    unit, place = task.unit, task.place
                    if unit is not None and place is not None and place[1] < before:
                        late.append((unit.batch, self._abandon(task, unit, place[0], limit)))
                if late:
                    late += self._replace_workers()
            for batch, result in late:
                self._done(batch, result)

    def _replace_workers(self) -> list[tuple[Batch, Result]]:
        """Start others in the place of those that were abandoned. With the lock held.

        Returns:
            What there is no thread for, which has failed.
        """
        try:
            self._call_workers()
        except RuntimeError as error:  # the system has no thread left
            if not self._at_work():
                left = list(self._units)
                self._units.clear()
                return [(unit.batch, fail_unit(self._job, unit, error, 1)) for unit in left]
        return []

    @property
    def needs_collect(self) -> bool:
        return self._job.patience.write_timeout is not None

    def wait(self, waiter: Waiter, timeout: float) -> None:
        super().wait(waiter, timeout)
        self.collect()

    def _call_workers(self) -> None:
        lacking = min(len(self._units), self._max_workers) - len(self._tasks)
        if lacking <= 0:
            return
        for _ in range(lacking):
            task = _Task()
            self._begin(task)
            self._tasks.add(task)

    def _begin(self, task: _Task) -> None:
        if self._job.patience.write_timeout is None:
            self._executor.submit(self._run, task)
            return
        thread = threading.Thread(target=self._run, args=(task,), name="lighter-async", daemon=True)
        thread.start()
        self._loose = {thread: task for thread, task in self._loose.items() if thread.is_alive()}
        self._loose[thread] = task

    def _at_work(self) -> bool:
        return bool(self._tasks)

    def _run(self, task: _Task) -> None:
        with self._being_worker():
            self._work(task)

    def _work(self, task: _Task) -> None:
        task.ident = threading.get_ident()
        with self._lock:
            lane = self._lanes.pop() if self._lanes else None
        while True:
            if task.is_to_seal:
                self._seal(task, lane)
            with self._lock:
                if task.is_to_seal:
                    continue
                if not self._units:
                    self._tasks.discard(task)
                    if lane is not None:
                        self._lanes.append(lane)
                    return
                unit = self._units.popleft()
                unit.batch.begun = True
                task.unit = unit
            try:
                if lane is None:
                    lane = self._make_lane()
                result = write_unit(self._job, unit, lane, task.on_progress)
            except Abandoned:
                return
            except OSError as error:  # what a dead worker has left of the lane cannot be taken over
                result = fail_unit(self._job, unit, error, 1)
            except BaseException as error:  # an exception of a user's that is odder than what `write_unit` is ready for
                result = fail_unit(
                    self._job, unit, LighterAsyncError(f"its failure cannot be told ({type(error).__name__})"), 1
                )
            with self._lock:
                task.place = task.unit = None
                if task.is_abandoned:
                    return  # what it was to write is reported already
            self._done(unit.batch, result)
            # Let go before waiting for the lock: the thread that holds it may need the batch's memory.
            del unit
            if lane is not None and lane.wants_seal:
                self._job.session.seal(lane, only_full=True)

    def _seal(self, task: _Task, lane: Lane | None) -> None:
        if lane is not None:
            self._job.session.seal(lane)
        with self._lock:
            task.is_to_seal = False
            self._sealed.notify_all()

    def _make_lane(self) -> Lane:
        with self._lock:
            number = self._lanes_made
            self._lanes_made += 1
        return self._job.session.lane(number)

    def _abandon(self, task: _Task, unit: Unit, index: int, limit: float) -> Result:
        """Fail the sample that a thread hangs in, and have others write the rest of its unit. With the lock held."""
        stack = _stack_of(task.ident)
        error = WriteTimeoutError(
            f"writing took longer than write_timeout={limit:g} s; its thread cannot be ended, and hangs in\n{stack}",
            stack=stack,
        )
        task.is_abandoned = True
        self._tasks.discard(task)
        self._sealed.notify_all()
        unit.batch.is_kept = True
        for start, stop in ((index + 1, unit.stop), (unit.start, index)):
            if start < stop:
                self._units.appendleft(Unit(unit.batch, start, stop, redelivered=True))
        return fail_unit(self._job, Unit(unit.batch, index, index + 1), error, 1)


def _stack_of(thread: int) -> str:
    """Where a thread is, as text."""
    # Without the garbage collector: one that comes in the middle of this call may wait for a lock of the interpreter
    # that the call holds, for ever (https://github.com/python/cpython/issues/106883).
    collects = gc.isenabled()
    gc.disable()
    try:
        frame = sys._current_frames().get(thread)
    finally:
        if collects:
            gc.enable()
    return "" if frame is None else "".join(traceback.format_stack(frame))
