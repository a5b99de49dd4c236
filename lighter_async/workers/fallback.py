"""Helper processes as long as they can be had, and threads from then on."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

from lighter_async.errors import BackendUnavailableError, describe
from lighter_async.staging import SharedMemory
from lighter_async.types import Batch, Result, Unit, Waiter
from lighter_async.workers.process.backend import ProcessBackend
from lighter_async.workers.process.interpreter import check_is_no_helper
from lighter_async.workers.thread import ThreadBackend
from lighter_async.workers.worker_job import Job
from lighter_async.workers.writing import fail_unit

__all__ = ["FallbackBackend"]


class FallbackBackend:
    """Runs a job in helper processes; where they cannot be started, or end before they are at work, in threads.

    What had been put by then and is in no helper's hand moves over to the threads, which find it in the same memory.
    Helpers that do work finish what they have in their hands. So nothing is lost, and nothing is done twice.

    Args:
        job: What is done with a unit.
        done: As for `ProcessBackend`.
        max_workers: Helpers, or threads.
        memory: What slots lie in, as long as there are helpers.
        queue_size: Samples that may be in flight at once.
        without_helpers: Called once helpers could not be started at all: nobody is to share the slots.
    """

    def __init__(
        self,
        job: Job,
        done: Callable[[Batch, Result], None],
        max_workers: int,
        *,
        memory: SharedMemory,
        queue_size: int,
        without_helpers: Callable[[], None],
    ) -> None:
        self._job = job
        self._done = done
        self._max_workers = max_workers
        self._make_helpers = partial(ProcessBackend, job, done, max_workers, memory=memory, queue_size=queue_size)
        self._without_helpers = without_helpers
        self._helpers: ProcessBackend | None = None
        self._lock = threading.RLock()
        self._threads: ThreadBackend | None = None  # made under _lock, and never unmade
        self._why: str | None = None

    @property
    def kind(self) -> Literal["thread", "process"]:
        """What the workers are by now."""
        return "process" if self._threads is None else "thread"

    @property
    def instead(self) -> str | None:
        return self._why

    @property
    def helpers(self) -> Sequence[int]:
        return () if self._helpers is None else self._helpers.helpers

    def start(self) -> None:
        """Start the helpers, or else get ready for threads.

        Raises:
            BackendUnavailableError: This process is no program of the user's, but was started as a helper.
        """
        check_is_no_helper()
        try:
            helpers = self._make_helpers(move=self._move)
            helpers.start()
            self._helpers = helpers
        except BackendUnavailableError as error:
            self._without_helpers()
            self._use_threads()
            self._warn(error.why)

    def seal(self) -> None:
        if self._helpers is not None:
            self._helpers.seal()
        if self._threads is not None:
            self._threads.seal()

    def stop(self, *, seal: bool = True) -> None:
        if self._helpers is not None:
            self._helpers.stop(seal=seal)
        if self._threads is not None:
            self._threads.stop(seal=seal)

    # In

    def prepare(self, batch: Batch) -> None:
        if self._threads is None and self._helpers is not None:
            self._helpers.prepare(batch)

    def put(self, units: Sequence[Unit]) -> None:
        # Helpers that give up between the look and the call hand what they are given on to `_move`.
        if self._threads is None and self._helpers is not None:
            self._helpers.put(units)
        else:
            self._use_threads().put(units)

    def took(self, batch: Batch) -> bool:
        return batch.begun or (self._threads is not None and self._threads.took(batch))

    def is_worker(self) -> bool:
        return self._threads is not None and self._threads.is_worker()

    def drop(self) -> list[Unit]:
        dropped = [] if self._helpers is None else self._helpers.drop()
        return dropped if self._threads is None else [*dropped, *self._threads.drop()]

    # Out

    def collect(self, *, quickly: bool = False) -> None:
        if self._helpers is not None:
            self._helpers.collect(quickly=quickly)
        if self._threads is not None:
            self._threads.collect(quickly=quickly)

    @property
    def needs_collect(self) -> bool:
        if self._threads is None:
            return self._helpers is not None and self._helpers.needs_collect
        return self._threads.needs_collect or self._working_helpers() is not None

    def wait(self, waiter: Waiter, timeout: float) -> None:
        waiting = self._working_helpers() or self._threads or self._helpers
        assert waiting is not None
        waiting.wait(waiter, timeout)

    def wake(self) -> None:
        if self._helpers is not None:
            self._helpers.wake()

    def watch(self) -> AbstractContextManager[int | None]:
        watched = self._helpers or self._use_threads()
        return watched.watch()

    # Moving over

    def _working_helpers(self) -> ProcessBackend | None:
        """The helpers, while they have something in their hands."""
        helpers = self._helpers
        return None if helpers is None or helpers.is_idle else helpers

    def _use_threads(self) -> ThreadBackend:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadBackend(self._job, self._done, self._max_workers)
            return self._threads

    def _move(self, cause: BaseException, units: Sequence[Unit]) -> None:
        """Take units of one batch over that no helper will do, or none; called with no lock of the helpers' held."""
        is_first = self._threads is None
        threads = self._use_threads()
        if units:
            try:
                threads.put(units)
            except RuntimeError as error:  # the interpreter is shutting down, or the system has no thread left
                for unit in units:
                    self._done(unit.batch, fail_unit(self._job, unit, error, 1))
        if is_first:
            self._warn(describe(cause))

    def _warn(self, why: str) -> None:
        self._why = f"no helper processes: {why}"
        # Last, since the user may have made errors of warnings.
        warnings.warn(
            f"no helper processes for {self._job.session.location!r}, so threads of this process write, which share "
            f"its interpreter lock with the loop: {why}; with backend='thread' this is not tried",
            RuntimeWarning,
            stacklevel=2,
        )
