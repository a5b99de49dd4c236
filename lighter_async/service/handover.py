"""A batch is handed over: checked, admitted, copied, claimed and accepted, or all of that undone."""

from __future__ import annotations

import os
from collections.abc import Sequence

from lighter_async.errors import ClosedError
from lighter_async.interrupts import uninterrupted
from lighter_async.ledger import Ledger, Reservation
from lighter_async.names import Numbers
from lighter_async.service.lifecycle import Lifecycle
from lighter_async.service.names_and_indices import (
    check_indices,
    check_origin,
    claim_rows,
    names_by_index,
    own_names,
    own_origin,
    rows_of,
)
from lighter_async.service.setup import Setup
from lighter_async.staging import Plan, StagingPool
from lighter_async.types import Backend, Batch, Origin, Unit

__all__ = ["HandOver"]

# Samples up to this many bytes together are one unit of work, so that not each of them pays for being fetched and told.
_UNIT_BYTES = 8 << 20
# Rows of an array are one write and one line, whatever their number, which several workers cannot do faster than one:
# they would wait for each other at the file.
_UNIT_BYTES_OF_ROWS = 1 << 20


class HandOver:
    """The way of a sample on the caller's side. It holds nothing between two calls, so it needs no lock of its own.

    Args:
        setup: What the writer is to do.
        pool: Where the samples are copied to.
        ledger: Admits and accepts them.
        lifecycle: Starts the workers at the first sample.
    """

    def __init__(self, setup: Setup, pool: StagingPool, ledger: Ledger, lifecycle: Lifecycle) -> None:
        self._target = setup.target
        self._arrays = setup.arrays
        self._tables = setup.tables
        self._suffixes = setup.suffixes
        self._one_by_one = setup.one_by_one
        self._max_workers = setup.max_workers
        self._pool = pool
        self._ledger = ledger
        self._lifecycle = lifecycle

    def submit(self, names: Sequence[str] | None, plan: Plan, timeout: float | None, origin: Origin | None) -> None:
        """Hand over what was planned, all or none of it.

        Args:
            names: One per sample; None where the target knows samples by their indices.
            plan: What is copied.
            timeout: Seconds to wait for space. None waits without limit, and 0 not at all.
            origin: Where the samples come from.

        Raises:
            ValueError, TypeError: As `BackgroundWriter.submit_batch`.
            InvalidNameError, DuplicateNameError, QueueFullError, WriteError, ClosedError: As `BackgroundWriter.submit`.
            RuntimeError: One of the writer's own workers would wait for itself.
        """
        lifecycle = self._lifecycle
        backend = lifecycle.backend
        if backend is None or lifecycle.pid != os.getpid():
            backend = lifecycle.started()
        if timeout != 0 and backend.is_worker():
            raise RuntimeError(
                "submit() was called from one of the writer's own workers, which would wait for itself; "
                "use submit_nowait() there"
            )
        count, ledger = plan.count, self._ledger
        rows: Sequence[int] | None = None
        is_own = False  # whether the origin is ours already
        if origin is not None:
            check_origin(origin)
        if self._arrays is not None:
            names, rows, origin = rows_of(names, count, origin, self._arrays)
        elif names is None:
            if self._tables is None:
                raise TypeError("names are a sequence with a name per sample; arrays and tables do without")
            if origin is not None:
                check_indices(origin, count)
                origin = own_origin(origin)
            names, is_own = names_by_index(count, origin), True
        names, files = own_names(names, count, self._suffixes, self._target)
        if origin is not None and not is_own:
            check_indices(origin, count)
        if count == 0:
            with uninterrupted():
                ledger.check_open()
            return
        if origin is not None and rows is None and not is_own:
            origin = own_origin(origin)
        nbytes = self._pool.bytes_of(plan)
        reservation = Reservation(count, nbytes)
        # In one piece, for signals, but for the waiting in it.
        with uninterrupted():
            if backend.needs_collect:
                backend.collect()
            elif ledger.is_crowded(reservation):
                backend.collect(quickly=True)
            if not ledger.try_reserve(reservation):
                ledger.reserve(reservation, timeout)
            try:
                self._enqueue(backend, names, files, plan, nbytes, origin, rows)
            except _Taken as taken:
                raise taken.interruption from None
            except BaseException:
                ledger.withdraw(reservation)
                raise

    def _enqueue(
        self,
        backend: Backend,
        names: Sequence[str],
        files: Sequence[str],
        plan: Plan,
        nbytes: int,
        origin: Origin | None,
        rows: Sequence[int] | None,
    ) -> None:
        ledger = self._ledger
        try:
            staged = self._pool.stage(plan)
        except Exception:
            ledger.check_open()  # closed meanwhile, there is no memory to copy to
            raise
        batch = Batch(names, staged, nbytes, plan.count, origin=origin)
        try:
            backend.prepare(batch)
            # Last, so that a batch whose copy fails can be handed over again under the same names.
            if (claims := self._lifecycle.claims) is not None:  # else closed meanwhile, as accept will say
                if rows is not None:
                    claim_rows(claims, rows, names)
                elif len(self._suffixes) > 1:
                    claims.claim(files, [*names] * len(self._suffixes))
                elif type(names) is Numbers:
                    claims.claim_numbers(names.range, self._suffixes[0])
                else:
                    claims.claim(files, names)
            ledger.accept(batch)
            backend.put(self._units(batch))
        except BaseException as error:
            if backend.took(batch):
                raise _Taken(error) from None
            ledger.reject(batch)
            self._pool.release(staged)
            if isinstance(error, RuntimeError):
                raise ClosedError(f"no worker can be started for {self._target.location!r}: {error}") from error
            raise

    def _units(self, batch: Batch) -> list[Unit]:
        count = batch.left
        if self._one_by_one:
            per = 1
        elif self._arrays is not None:
            per = max(1, _UNIT_BYTES_OF_ROWS * count // max(1, batch.nbytes))
        else:
            share = -(-count // self._max_workers)
            per = max(1, min(share, _UNIT_BYTES * count // max(1, batch.nbytes)))
        return [Unit(batch, start, min(start + per, count)) for start in range(0, count, per)]


class _Taken(Exception):
    """A hand-over was interrupted after a worker could see it, so that it counts."""

    def __init__(self, interruption: BaseException) -> None:
        self.interruption = interruption
