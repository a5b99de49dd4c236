"""What the workers of this process have in common: the deque that they take units from, and how they are started."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

from lighter_async.types import Batch, Result, Unit, Waiter
from lighter_async.workers.worker_job import Job

__all__ = ["UnitQueue"]


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
        self._here: set[int] = set()  # the numbers of the threads that are at work: asked for at every hand-over
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._units: deque[Unit] = deque()
        # Whether to wait for nothing any more. The job must not refer to us: who looks after a writer until it is
        # collected refers to the job.
        self._hurried = threading.Event()
        job.patience.is_over = self._hurried.is_set

    @property
    def kind(self) -> Literal["thread", "process"]:
        """What the workers are."""
        return "thread"

    @property
    def instead(self) -> str | None:
        return None

    @property
    def helpers(self) -> Sequence[int]:
        return ()

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

    def wait(self, waiter: Waiter, timeout: float) -> None:
        waiter.wait(timeout)  # threads tell the ledger themselves, which wakes it

    def collect(self, *, quickly: bool = False) -> None:
        return  # threads tell it themselves

    @property
    def needs_collect(self) -> bool:
        return False  # the same

    def wake(self) -> None:
        return  # the ledger wakes waiting threads

    def watch(self) -> AbstractContextManager[int | None]:
        return nullcontext()

    def drop(self) -> list[Unit]:
        with self._lock:
            dropped = list(self._units)
            self._units.clear()
            self._hurried.set()
            return dropped

    def is_worker(self) -> bool:
        return threading.get_ident() in self._here

    @contextmanager
    def _being_worker(self) -> Iterator[None]:
        """While it is open, the calling thread is one of the workers."""
        me = threading.get_ident()
        self._here.add(me)
        try:
            yield
        finally:
            self._here.discard(me)

    def seal(self) -> None:
        return  # a writer that stores its files itself has nothing to seal

    @abstractmethod
    def stop(self, *, seal: bool = True) -> None: ...

    @abstractmethod
    def _call_workers(self) -> None:
        """See to it that enough workers look at the deque. Called with the lock held; RuntimeError at exit."""

    @abstractmethod
    def _at_work(self) -> bool:
        """Whether a worker will look at the deque again. Called with the lock held."""
