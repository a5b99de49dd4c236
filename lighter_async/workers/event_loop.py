"""A worker that is an event loop in a thread of its own, for async writers."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait

from lighter_async.interrupts import run_handlers, uninterrupted
from lighter_async.types import Batch, Result, Unit
from lighter_async.workers.queue import UnitQueue
from lighter_async.workers.worker_job import Job
from lighter_async.workers.writing import await_unit

__all__ = ["EventLoopBackend"]

_SECONDS_TO_NOTICE = 0.05


class EventLoopBackend(UnitQueue):
    """Runs a job's async function, up to `max_workers` samples at once, on one asyncio event loop.

    The loop lives as long as the backend, so that a writer may keep a client session or a lock from one sample to the
    next. It runs in one thread while there are units, and rests in between. No unit is forgotten, for the loop comes to
    rest only when it saw the deque empty under the lock, and `put` wakes or restarts it under the same lock.
    """

    def __init__(self, job: Job, done: Callable[[Batch, Result], None], max_workers: int) -> None:
        super().__init__(job, done, max_workers, threads=1)
        self._loop: asyncio.AbstractEventLoop
        self._finished: Future[None] | None = None
        # Guarded by _lock:
        self._wake: asyncio.Event | None = None  # while the loop runs
        self._started = False

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        # For a writer that nobody closed: it is collected when nothing is pending, so the loop rests.
        weakref.finalize(self, _close, self._loop, os.getpid()).atexit = False

    def stop(self, *, seal: bool = True) -> None:
        with uninterrupted():
            if self._finished is None:
                try:
                    self._finished = self._executor.submit(self._finish)
                except RuntimeError:  # the interpreter is shutting down, and its threads have ended
                    self._loop.close()
                    return
            # A task that a writer left running may take long to end.
            while not wait([self._finished], _SECONDS_TO_NOTICE).done:
                run_handlers()
            self._executor.shutdown()
            self._finished.result()

    def _call_workers(self) -> None:
        if not self._units:
            return
        if self._wake is not None:
            self._loop.call_soon_threadsafe(self._wake.set)
        elif not self._started:
            self._executor.submit(self._run)
            self._started = True

    def _at_work(self) -> bool:
        return self._started

    def _run(self) -> None:
        with self._being_worker():
            self._work()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        serving = self._loop.create_task(self._serve())
        while not serving.done():
            try:
                self._loop.run_until_complete(serving)
            except (RuntimeError, SystemExit, KeyboardInterrupt):
                # A writer stopped the loop, or a task that it started raised what asyncio lets through. Whoever awaits
                # that task is told of it; the other samples must not wait for ever.
                continue

    async def _serve(self) -> None:
        wake = asyncio.Event()
        tasks: dict[asyncio.Task[None], Unit] = {}

        def ended(task: asyncio.Task[None]) -> None:
            unit = tasks.pop(task)
            if task.cancelled():  # before it began: cancelling one that has begun fails its sample
                with self._lock:
                    self._units.appendleft(unit)
            wake.set()

        def begin(units: Sequence[Unit]) -> None:
            for unit in units:
                task = self._loop.create_task(self._write(unit))
                tasks[task] = unit
                task.add_done_callback(ended)

        while True:
            with self._lock:
                wake.clear()
                self._wake = wake
                units = [self._units.popleft() for _ in range(min(len(self._units), self._max_workers - len(tasks)))]
                for unit in units:
                    unit.batch.begun = True
                    del unit
                if not units and not tasks:
                    self._wake = None
                    self._started = False
                    return
            begin(units)  # outside of the lock, since an eager task factory calls the writer here
            del units
            try:
                await wake.wait()
            except asyncio.CancelledError:
                continue  # a writer cancelled every task that it found on the loop

    async def _write(self, unit: Unit) -> None:
        self._done(unit.batch, await await_unit(self._job, unit))

    def _finish(self) -> None:
        """End what a writer left running on the loop, as `asyncio.run` does."""
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        try:
            if left:
                self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            for task in left:
                if not task.cancelled() and (error := task.exception()) is not None:
                    self._loop.call_exception_handler(
                        {"message": "a task that a writer left running failed", "exception": error, "task": task}
                    )
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()


def _close(loop: asyncio.AbstractEventLoop, process: int) -> None:
    if process == os.getpid():  # a forked child shares the loop's descriptors with its parent
        loop.close()
