"""The asyncio face of the background writer: the same service, awaiting instead of blocking."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from time import perf_counter
from types import TracebackType
from typing import Any, TypeVar

import anyio
from anyio import to_thread

from lighter_async.errors import FlushTimeoutError, LighterAsyncError, QueueFullError, attach
from lighter_async.ledger import Bell
from lighter_async.service import BackgroundWriter, State
from lighter_async.types import WriterStats

__all__ = ["AsyncBackgroundWriter"]

_Self = TypeVar("_Self", bound="AsyncBackgroundWriter")

# What takes the event loop longer than about a millisecond to copy is copied in a thread.
_COPIED_ON_THE_LOOP = 4 << 20


class AsyncBackgroundWriter:
    """A `BackgroundWriter` for asyncio (and trio) programs: its calls await where that one's block.

    Samples come in in the order in which their ``submit`` was called. A call that is cancelled while it waits for room
    has handed nothing over; one that has handed its sample over is not cancelled any more, so that a sample is either
    accepted and stored, or its call was cancelled.

    Use it from one event loop, and as an async context manager, whose end waits until everything is stored, even
    when it is cancelled.

    Args:
        writer: As for `BackgroundWriter`, as are `directory` and the options. ``async def`` writers run concurrently,
            up to `max_workers`, on an event loop of the workers' own, never on the caller's.
    """

    def __init__(
        self,
        writer: str | Callable[..., Any] = "tensor",
        directory: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        self._writer = BackgroundWriter(writer, directory, **options)
        self._turn = anyio.Lock()

    async def submit(self, name: str, value: Any) -> None:
        """Hand one sample over. Awaits while there is no room.

        Args:
            name: As for `BackgroundWriter.submit`.
            value: As for `BackgroundWriter.submit`.

        Raises:
            InvalidNameError, DuplicateNameError, WriteError, ClosedError: As `BackgroundWriter.submit`.
        """
        await self._hand_over(lambda: self._writer.submit_nowait(name, value), _nbytes(value))

    async def submit_batch(self, names: Sequence[str], values: Any) -> None:
        """Hand a batch over, which is copied as a whole. Awaits while there is no room for all of it.

        Args:
            names: As for `BackgroundWriter.submit_batch`.
            values: As for `BackgroundWriter.submit_batch`.

        Raises:
            ValueError, TypeError, InvalidNameError, DuplicateNameError, WriteError, ClosedError: As
                `BackgroundWriter.submit_batch`.
        """
        await self._hand_over(lambda: self._writer.submit_batch_nowait(names, values), _nbytes(values))

    def submit_nowait(self, name: str, value: Any) -> None:
        """Hand one sample over, or raise `QueueFullError` at once."""
        self._writer.submit_nowait(name, value)

    async def flush(self, *, timeout: float | None = None) -> None:
        """Wait until every sample accepted before this call is stored.

        Args:
            timeout: Seconds to wait in all. None waits without limit.

        Raises:
            FlushTimeoutError: Some samples are still pending; they stay queued.
            WriteError: Samples were not written, and this was not raised yet: all of them together.
        """
        ledger = self._writer._ledger
        await self._done(ledger.mark(), timeout)
        ledger.raise_failures()

    async def close(self, *, timeout: float | None = None) -> None:
        """Accept no more samples, wait until every accepted one is stored, and let the workers go.

        Cancelled or out of time it leaves the samples queued and being stored; call it again to wait for them.

        Args:
            timeout: Seconds to wait in all. None waits without limit.

        Raises:
            FlushTimeoutError: Some samples are still pending.
            WriteError: Samples were not written, and this was not raised yet: all of them together.
        """
        self._writer._drain()
        await self._done(None, timeout)
        # Nothing is left to wait for but the end of the threads.
        await to_thread.run_sync(self._writer.close)

    async def abort(self) -> int:
        """Accept no more samples, drop those that no worker has begun, and let the workers go.

        Returns:
            How many samples were dropped.
        """
        return await to_thread.run_sync(self._writer.abort)

    def stats(self) -> WriterStats:
        """What was done so far."""
        return self._writer.stats()

    @property
    def state(self) -> State:
        """Where the writer stands in its life."""
        return self._writer.state

    async def __aenter__(self: _Self) -> _Self:
        await to_thread.run_sync(self._writer.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self.close()
            except LighterAsyncError as error:
                if exception is None:
                    raise
                attach(error, exception)

    async def _hand_over(self, submit: Callable[[], None], nbytes: int) -> None:
        async with self._turn:
            if await self._tried(submit, nbytes):
                return
            began = perf_counter()
            try:
                with self._writer._ledger.bell() as bell:
                    # Tried again after the bell was hung up, since room that came before did not ring it.
                    while not await self._tried(submit, nbytes):
                        await _rung(bell)
            finally:
                self._writer._ledger.count_wait(perf_counter() - began)

    async def _tried(self, submit: Callable[[], None], nbytes: int) -> bool:
        try:
            if nbytes <= _COPIED_ON_THE_LOOP:
                submit()
            else:
                await to_thread.run_sync(submit)
        except QueueFullError:
            return False
        return True

    async def _done(self, mark: int | None, timeout: float | None) -> None:
        ledger = self._writer._ledger
        with anyio.move_on_after(timeout):
            with ledger.bell() as bell:
                while ledger.pending(mark):
                    await _rung(bell)
        pending = ledger.pending(mark)
        if pending:
            raise FlushTimeoutError(
                f"{pending} samples were still being written after {timeout} s; they stay queued", pending=pending
            )


async def _rung(bell: Bell) -> None:
    await anyio.wait_readable(bell.socket)
    bell.silence()


def _nbytes(value: Any) -> int:
    """About how much there is to copy: exact for tensors and arrays, also those in a list, tuple or dict."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return sum(_nbytes(item) for item in value)
    nbytes = getattr(value, "nbytes", 0)
    return nbytes if isinstance(nbytes, int) else 0
