"""A writer's life: its workers are started, waited for, and let go."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from lighter_async.errors import ClosedError, FlushTimeoutError, WriteError, attach
from lighter_async.interrupts import uninterrupted
from lighter_async.ledger import Ledger
from lighter_async.manifest import Loader
from lighter_async.names import Claims, claims_of, let_go_of_unreachable
from lighter_async.notices import users_line
from lighter_async.other_programs import in_use_since, look
from lighter_async.service.held_up import HeldUp
from lighter_async.service.setup import Setup
from lighter_async.service.start_and_end_lock import StartAndEndLock
from lighter_async.service.starting import close_job, make_job, make_workers, open_job
from lighter_async.service.unclosed_at_exit import Unclosed
from lighter_async.staging import StagingPool
from lighter_async.target_and_record import Session
from lighter_async.types import Backend, Batch, WriterStats
from lighter_async.workers import Choice, choose_by_cores

__all__ = ["Lifecycle", "State"]

State = Literal["new", "running", "failed", "draining", "closed"]
"""Where a writer stands in its life: ``new → running → draining → closed``, with ``failed`` after a write failed."""


class Lifecycle:
    """Starts the workers at the first sample, and lets them go at the end. It owns the ledger.

    Fields change under a lock that is never held while waiting for a sample, and are read without it: a hand-over that
    reads an old value is refused by the ledger.

    Args:
        setup: What the writer is to do.
        pool: Where its samples are copied to, which is closed with it.

    Attributes:
        ledger: The books.
        choice: What the workers are to be, and why.
        backend: The workers, once they are started.
        claims: The names that this location's open writers have used, while this one is open.
        pid: The process that it belongs to.
    """

    def __init__(self, setup: Setup, pool: StagingPool) -> None:
        self._setup = setup
        self._pool = pool
        self._location = setup.target.location
        self._looked = look() if setup.choice.is_open else None
        self._made_at = users_line()
        self._warns = True
        self.ledger = Ledger(
            queue_size=setup.queue_size,
            queue_bytes=setup.queue_bytes,
            max_workers=setup.max_workers,
            location=self._location,
            release=self._release if setup.backend == "thread" else partial(_release, pool),
            on_error=setup.options.on_error,
        )
        self._lock = StartAndEndLock()
        # Guarded by _lock:
        self.choice = setup.choice
        self.backend: Backend | None = None
        self.claims: Claims | None = None
        self.pid = os.getpid()
        self._state: Literal["new", "running", "draining", "closed"] = "new"

    # Start

    def start(self, *, warns: bool = True, has_work: bool = True) -> None:
        """As `BackgroundWriter.start`.

        Args:
            warns: Whether it warns of results that are replaced.
            has_work: Whether samples are to come. Where none are, the target is opened and the run recorded, for what
                earlier runs have left may be to do, but there are only threads, which are made when samples come.
        """
        with uninterrupted():
            self._warns = self._warns and warns
            if not has_work and self._state == "new":
                self.choice = Choice("thread", "there was nothing to write")
            self.started()
            if self._state in ("draining", "closed"):
                self.ledger.check_open()

    def started(self) -> Backend:
        """The workers, which are started at the first call.

        Raises:
            ClosedError: The writer was closed before it was started, or belongs to the process that this one was
                forked from.
            BackendUnavailableError, OSError: As `BackgroundWriter.start`.
        """
        with uninterrupted():
            self.check_process()
            if self.backend is None:
                with self._lock:
                    if self.backend is None:
                        self.backend = self._start()
            return self.backend

    def _start(self) -> Backend:
        setup, ledger = self._setup, self.ledger
        if self._state != "new":
            ledger.check_open()
        let_go_of_unreachable(self._location)
        self.choice = choose_by_cores(self.choice, in_use_since(self._looked))
        job = make_job(setup)
        backend = make_workers(setup, self.choice, self._pool, job, ledger.done)
        open_job(setup, job, warns=self._warns)
        try:
            backend.start()
        except BaseException:
            job.session.close()
            raise
        for output in job.outputs:
            output.encoder.warm_up()
        self._pool.work_ahead()
        self._job = job
        self.claims = claims_of(self._location, self._made_at)
        # What is told refers to the ledger and the backend alone, which outlive a writer that is collected unclosed.
        held_up = HeldUp(self._location, ledger.stats, backend, self.choice.reason)
        ledger.open(backend.wait, backend.wake, held_up.note if setup.is_first_rank else None)
        self._state = "running"
        let_go = partial(self.claims.let_go, self._made_at)
        finish = partial(_finish, ledger, backend, job.session, let_go) if setup.backend == "process" else None
        self._unclosed = Unclosed(self, job.session, ledger.unraised, finish)
        return backend

    def describe(self, loaders: Sequence[Loader], *, named: bool) -> None:
        """Record over which data sets the samples go, and whether the user names them."""
        with uninterrupted():
            if self._job.session.log is not None:
                self._job.session.log.describe(loaders, named=named)

    # Reports

    @property
    def kind(self) -> Literal["thread", "process"]:
        """What the workers are, or are to be."""
        backend = self.backend
        return self.choice.backend if backend is None else backend.kind

    @property
    def reason(self) -> str:
        """Why."""
        backend = self.backend
        return (None if backend is None else backend.instead) or self.choice.reason

    @property
    def state(self) -> State:
        """Where the writer stands."""
        with uninterrupted():
            self.collect()
        return "failed" if self._state == "running" and self.ledger.failed else self._state

    @property
    def is_closed(self) -> bool:
        """Whether the workers were let go."""
        return self._state == "closed"

    def stats(self) -> WriterStats:
        """What was done so far.

        Raises:
            ClosedError: The writer belongs to the process that this one was forked from.
        """
        self.check_process()
        with uninterrupted():
            self.collect()
            return replace(self.ledger.stats(), backend=self.kind, backend_reason=self.reason)

    # Whole calls, as those of `BackgroundWriter`

    def flush(self, timeout: float | None, *, seal: bool = False) -> None:
        """Wait until every sample accepted before this call is stored, and sealed if that is asked for."""
        self.check_caller("flush")
        with uninterrupted():
            self._wait_done(self.ledger.mark(), timeout)
            if seal:
                self.seal()
            self.ledger.raise_failures()

    def close(self, timeout: float | None = None, *, seal: bool = True) -> None:
        """Accept no more samples, wait until every accepted one is stored, seal that, and let the workers go."""
        self.check_caller("close")
        with uninterrupted():
            self.refuse()
            self._wait_done(None, timeout)
            self.raise_failures(self.finish(seal=seal))

    def abort(self) -> int:
        """Accept no more samples, drop those that no worker has begun, and let the workers go."""
        self.check_caller("abort")
        with uninterrupted():
            self.refuse()
            dropped = self.drop()
            self._wait_done(None, None)
            self.raise_failures(self.finish())
            return dropped

    # Their steps, none of which waits for samples to be stored

    def collect(self) -> None:
        """Take in what workers have done. Signals are held back by the caller."""
        backend = self.backend
        if backend is not None and self._state in ("running", "draining") and self.pid == os.getpid():
            backend.collect()

    def refuse(self) -> None:
        """Accept no more samples."""
        with uninterrupted(), self._lock:
            if self._state in ("new", "running"):
                self._state = "draining" if self._state == "running" else "closed"
                self.ledger.refuse(f"the writer for {self._location!r} is closed; open another one")

    def drop(self) -> int:
        """Drop the samples that no worker has begun; returns how many."""
        backend = self.backend
        return 0 if backend is None else self.ledger.drop(backend.drop())

    def seal(self) -> None:
        """Give what is stored its final names."""
        with uninterrupted():
            if self.backend is not None and self._state == "running":
                self.backend.seal()
                self._job.session.seal_table(ends=False)

    def finish(self, *, seal: bool = True) -> Exception | None:
        """Let the workers go, and then the target; returns what that one has raised, which must not hide failures."""
        with uninterrupted(), self._lock:
            if self._state != "draining":
                return None
            assert self.backend is not None
            self.ledger.close()
            # Other writers on this location may use the names again once all of today's are closed.
            claims, self.claims = self.claims, None
            if claims is not None:
                claims.let_go(self._made_at)
            self._pool.close()
            self.backend.stop(seal=seal)  # a signal's handler may raise here; then the next call goes on
            if seal:
                self._job.session.seal_table(ends=True)
            self._state = "closed"
            self._unclosed.forget()
            try:
                close_job(self._setup, self._job)
            except Exception as error:
                return error
            return None

    def leave_to_helpers(self) -> None:
        """What is pending is stored by helper processes, and this process does not wait for them at its exit."""
        self._unclosed.forget()

    def raise_failures(self, error: Exception | None) -> None:
        """Raise the failures that were not raised yet with the error attached, or the error alone."""
        try:
            self.ledger.raise_failures()
        except WriteError as failures:
            if error is not None:
                attach(error, failures)
            raise
        if error is not None:
            raise error

    def flush_timeout(self, pending: int, timeout: float | None) -> FlushTimeoutError:
        """The error of a caller whose time is up."""
        return FlushTimeoutError(
            f"{pending} samples were still being written to {self._location!r} after {timeout:g} s; "
            "they stay queued, and flush() waits for them again",
            pending=pending,
        )

    def _wait_done(self, mark: int | None, timeout: float | None) -> None:
        self.collect()
        pending = self.ledger.wait_done(mark, timeout)
        if pending:
            raise self.flush_timeout(pending, timeout)

    def _release(self, batch: Batch) -> None:
        # A method, since threads at work hold the ledger, and thereby keep all of this as long as anything is pending.
        _release(self._pool, batch)

    # Who calls

    def check_process(self) -> None:
        """
        Raises:
            ClosedError: The writer belongs to the process that this one was forked from.
        """
        # Before any lock, which another thread of the parent may have held when it forked.
        if self.pid != os.getpid():
            if self._state == "new" and not self._lock.is_held:
                self.pid = os.getpid()
                self.ledger.forked()
                return
            raise ClosedError(
                f"this writer for {self._location!r} belongs to process {self.pid}, and this is process "
                f"{os.getpid()}, forked from it, where its workers do not run; make a writer in each process"
            )

    def check_caller(self, call: str) -> None:
        """
        Raises:
            RuntimeError: One of the writer's own workers calls, which would wait for itself.
            ClosedError: As `check_process`.
        """
        self.check_process()
        if self.backend is not None and self.backend.is_worker():
            raise RuntimeError(
                f"{call}() was called from one of the writer's own workers, which would wait for itself; "
                "call it from the thread that submits"
            )


def _release(pool: StagingPool, batch: Batch) -> None:
    if batch.is_kept:
        pool.forget(batch.staged)
    else:
        pool.release(batch.staged)


def _finish(ledger: Ledger, backend: Backend, session: Session, let_go: Callable[[], None]) -> None:
    with uninterrupted():
        try:
            ledger.wait_done(None, None)
        finally:
            # Not before: a writer that took the same names now would store its samples before those of this one.
            let_go()
        backend.stop()
        session.seal_table(ends=True)
