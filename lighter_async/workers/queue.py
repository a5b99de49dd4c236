"""What the workers of this process have in common: the deque that they take units from, and how they are started."""

from __future__ import annotations

import signal
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from types import FrameType, TracebackType
from typing import Any

from lighter_async.types import Batch, Result, Unit
from lighter_async.workers.job import Job

__all__ = ["UnitQueue", "uninterrupted"]

_SECONDS_TO_NOTICE = 1.0


class UnitQueue(ABC):
    """A deque of units, and an executor's threads that take them from there.

    The units wait in a deque of ours instead of the executor's. So an idle thread is parked in the executor, where it
    holds nothing of ours, and where the interpreter's exit finds it: it finishes what was put, and never hangs.

    Args:
        job: What is done with a unit.
        done: Called with a unit's batch and what became of it, by the thread that did it, with no lock of ours held.
        max_workers: Samples at once.
        threads: Threads at most.
    """

    def __init__(self, job: Job, done: Callable[[Batch, Result], None], max_workers: int, *, threads: int) -> None:
        self._job = job
        self._done = done
        self._max_workers = max_workers
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="lighter-async")
        self._here = threading.local()
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._units: deque[Unit] = deque()
        # Whether to wait for nothing any more. The job must not refer to us: who looks after a writer until it is
        # collected refers to the job.
        self._hurried = threading.Event()
        job.patience.is_over = self._hurried.is_set

    def start(self) -> None:
        return  # threads are started as units come

    def prepare(self, batch: Batch) -> None:
        return  # threads see what this one sees

    def put(self, units: Sequence[Unit]) -> None:
        with self._lock:
            self._units.extend(units)
            try:
                self._call_workers()
            except RuntimeError:
                if not self._at_work():
                    for _ in units:
                        self._units.pop()
                    raise

    def took(self, batch: Batch) -> bool:
        with self._lock:
            return batch.begun or any(unit.batch is batch for unit in self._units)

    def wait(self, changed: threading.Condition, timeout: float | None) -> None:
        with self._lock:
            self._call_workers()  # which an exception of a signal's handler in put may have prevented
        # In slices: a signal that comes just before the wait begins is noticed only when it ends.
        changed.wait(_SECONDS_TO_NOTICE if timeout is None else min(timeout, _SECONDS_TO_NOTICE))

    def collect(self) -> None:
        return  # threads tell it themselves

    @property
    def has_failures(self) -> bool:
        return False  # the same

    def wake(self) -> None:
        return  # who waits does so for the condition, which is notified

    def watch(self) -> AbstractContextManager[int | None]:
        return nullcontext()

    def drop(self) -> list[Unit]:
        with self._lock:
            dropped = list(self._units)
            self._units.clear()
            self._hurried.set()
            return dropped

    def is_worker(self) -> bool:
        return getattr(self._here, "is_worker", False)

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def _call_workers(self) -> None:
        """See to it that enough workers look at the deque. Called with the lock held; RuntimeError at exit."""

    @abstractmethod
    def _at_work(self) -> bool:
        """Whether a worker will look at the deque again. Called with the lock held."""


class uninterrupted:
    """Hold Ctrl-C back for a moment, in which a change is made that must be whole; within another, do nothing."""

    # The functions themselves, without the wrappers that make enumerations of numbers: the loop waits meanwhile.
    _get = staticmethod(getattr(signal.getsignal, "__wrapped__", signal.getsignal))
    _set = staticmethod(getattr(signal.signal, "__wrapped__", signal.signal))

    __slots__ = ("_handler", "_held")

    def __init__(self) -> None:
        self._handler: Any = None
        self._held: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        if threading.get_ident() != threading.main_thread().ident:
            return
        handler = self._get(signal.SIGINT)
        # Else it is ignored, left to the system, not Python's, or held back already.
        if callable(handler) and type(handler) is not uninterrupted:
            self._set(signal.SIGINT, self)
            self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._held = number, frame

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._handler is not None:
            self._set(signal.SIGINT, self._handler)
            if self._held is not None:
                self._handler(*self._held)
