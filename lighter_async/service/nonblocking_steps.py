"""The single steps of a writer's calls, for a face that waits in a way of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from lighter_async.errors import FlushTimeoutError, QueueFullError
from lighter_async.interrupts import uninterrupted
from lighter_async.ledger import Bell, Ledger
from lighter_async.service.handover import HandOver
from lighter_async.service.lifecycle import Lifecycle
from lighter_async.staging import Plan, StagingPool
from lighter_async.types import Origin

__all__ = ["Steps"]


class Steps:
    """The single steps of a `BackgroundWriter`'s calls, none of which waits for samples to be stored.

    They are for a face that waits in a way of its own, such as the asyncio one. Signals are held back during each.
    """

    def __init__(self, pool: StagingPool, ledger: Ledger, lifecycle: Lifecycle, handover: HandOver) -> None:
        self._pool = pool
        self._ledger = ledger
        self._lifecycle = lifecycle
        self._handover = handover

    # Handing over

    def plan_sample(self, value: Any) -> Plan:
        """What handing over one sample will take."""
        return self._pool.plan_sample(value)

    def plan_batch(self, values: Any) -> Plan:
        """What handing over a batch will take.

        Raises:
            ValueError, TypeError: As `BackgroundWriter.submit_batch`.
        """
        return self._pool.plan_batch(values)

    @property
    def has_workers(self) -> bool:
        """Whether the workers were started, which the first hand-over does, and which takes a moment."""
        return self._lifecycle.backend is not None

    def try_submit(self, names: Sequence[str] | None, plan: Plan, origin: Origin | None) -> bool:
        """Hand over what was planned; returns whether there was space for it.

        Raises:
            InvalidNameError, DuplicateNameError, WriteError, ClosedError: As `BackgroundWriter.submit_batch`.
        """
        try:
            self._handover.submit(names, plan, 0, origin)
        except QueueFullError:
            return False
        return True

    def count_wait(self, seconds: float) -> None:
        """Have `stats` tell of a wait for space."""
        with uninterrupted():
            self._ledger.count_wait(seconds)

    # Waiting

    def check_caller(self, call: str) -> None:
        """
        Raises:
            RuntimeError: One of the writer's own workers calls, which would wait for itself.
            ClosedError: The writer belongs to the process that this one was forked from.
        """
        self._lifecycle.check_caller(call)

    def mark(self) -> int:
        """A number for everything that was accepted until now."""
        with uninterrupted():
            return self._ledger.mark()

    def pending(self, mark: int | None) -> int:
        """Samples accepted, up to a mark, that are not stored yet."""
        with uninterrupted():
            self._lifecycle.collect()
            return self._ledger.pending(mark)

    def collect(self) -> None:
        """Take in what workers have done."""
        with uninterrupted():
            self._lifecycle.collect()

    @contextmanager
    def watch(self) -> Iterator[tuple[Bell, int | None]]:
        """While it is open: a bell that rings when something changes, and a descriptor that is readable when `collect`
        has news; None where the bell tells of all."""
        backend = self._lifecycle.backend
        with self._ledger.bell() as bell, nullcontext() if backend is None else backend.watch() as descriptor:
            self._lifecycle.collect()  # what was done before it was watched is not told
            yield bell, descriptor

    def flush_timeout(self, pending: int, timeout: float | None) -> FlushTimeoutError:
        """The error of a caller whose time is up."""
        return self._lifecycle.flush_timeout(pending, timeout)

    # Ending

    def refuse(self) -> None:
        """Accept no more samples."""
        self._lifecycle.refuse()

    def seal(self) -> None:
        """Give what is stored its final names. It waits until workers have done so."""
        self._lifecycle.seal()

    def finish(self) -> Exception | None:
        """Let the workers go, when nothing is pending; returns what the target has raised at its end."""
        return self._lifecycle.finish()

    def raise_failures(self, error: Exception | None = None) -> None:
        """
        Raises:
            WriteError: Samples were not written, and this was not raised yet; the error is attached.
            Exception: The error, if there is no such failure.
        """
        with uninterrupted():
            self._lifecycle.raise_failures(error)
