"""The asyncio face of the background writer, as its callers see it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio.lowlevel import current_token

from lighter_async.aio.threads import in_thread, to_the_end
from lighter_async.aio.watch import Watch
from lighter_async.errors import attach
from lighter_async.interrupts import uninterrupted
from lighter_async.names import Name
from lighter_async.options import Options, WriterOptions, documented
from lighter_async.service import BackgroundWriter, State, text_of, texts_of
from lighter_async.staging import Plan, streams_of
from lighter_async.targets import Target
from lighter_async.types import Origin, WriterStats

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AsyncBackgroundWriter"]

_Self = TypeVar("_Self", bound="AsyncBackgroundWriter")

# What takes the event loop longer than about a millisecond to copy is copied in a thread.
_COPIED_ON_THE_LOOP = 4 << 20
_BYTES_PER_COPY = 16 << 10  # what could be copied in the time that it takes to begin with another tensor


@documented(WriterOptions)
class AsyncBackgroundWriter:
    """A `BackgroundWriter` for asyncio (and trio) programs: its calls await where that one's block.

    Samples come in in the order in which their ``submit`` was called. A call that is cancelled while it waits for room
    has handed nothing over. Once a large sample is being copied, which happens in a thread, the call ends when the
    copy is whole, and the sample counts as accepted: cancelling does not leave the caller's memory being read.

    Use it from one event loop, and as an async context manager, whose end waits until everything is stored, even
    when it is cancelled.

    Args:
        writer: As for `BackgroundWriter`, as are the others. ``async def`` writers run concurrently, up to
            `max_workers`, on an event loop of the workers' own, never on the caller's.
        directory: Where the files go. Made if it does not exist.
        target: Instead of `directory`: where the bytes go.
        {options}

    Raises:
        ValueError, TypeError: As `BackgroundWriter`.
    """

    def __init__(
        self,
        writer: str | Callable[..., Any] | Mapping[str, Any] | None = None,
        directory: str | os.PathLike[str] | Target | None = None,
        *,
        target: Target | None = None,
        **options: Unpack[WriterOptions],
    ) -> None:
        Options.of("AsyncBackgroundWriter", options)
        self._writer = BackgroundWriter(writer, directory, target=target, **options)
        self._steps = self._writer.steps
        self._turn = anyio.Lock()
        self._watches: dict[object, Watch] = {}  # by event loop, while somebody waits there
        self._waiting = False  # the task whose turn it is waits for space, and those behind it for their turn

    async def submit(self, name: Name, value: Any, *, origin: Origin | None = None) -> None:
        """Hand one sample over. Awaits while there is no room.

        Args:
            name: As for `BackgroundWriter.submit`.
            value: As for `BackgroundWriter.submit`.
            origin: As for `BackgroundWriter.submit`.

        Raises:
            TypeError, InvalidNameError, DuplicateNameError, WriteError, ClosedError: As `BackgroundWriter.submit`.
        """
        await self._hand_over([text_of(name, value)], self._steps.plan_sample(value), origin)

    async def submit_batch(self, names: Sequence[Name] | None, values: Any, *, origin: Origin | None = None) -> None:
        """Hand a batch over, which is copied as a whole. Awaits while there is no room for all of it.

        Args:
            names: As for `BackgroundWriter.submit_batch`.
            values: As for `BackgroundWriter.submit_batch`.
            origin: As for `BackgroundWriter.submit_batch`.

        Raises:
            ValueError, TypeError, InvalidNameError, DuplicateNameError, WriteError, ClosedError: As
                `BackgroundWriter.submit_batch`.
        """
        texts = texts_of(names, values)
        own = tuple(texts) if isinstance(texts, list) else texts
        await self._hand_over(own, self._steps.plan_batch(values), origin)

    def submit_nowait(self, name: Name, value: Any, *, origin: Origin | None = None) -> None:
        """As `submit`, but copies on the event loop, and raises `QueueFullError` where that would wait."""
        self._writer.submit_nowait(name, value, origin=origin)

    def submit_batch_nowait(self, names: Sequence[Name] | None, values: Any, *, origin: Origin | None = None) -> None:
        """As `submit_batch`, but copies on the event loop, and raises `QueueFullError` where that would wait."""
        self._writer.submit_batch_nowait(names, values, origin=origin)

    async def flush(self, *, timeout: float | None = None, seal: bool = False) -> None:
        """Wait until every sample accepted before this call is stored.

        Args:
            timeout: Seconds to wait for that. None waits without limit.
            seal: As of `BackgroundWriter.flush`.

        Raises:
            FlushTimeoutError: Some samples are still pending; they stay queued.
            WriteError: Samples were not written, and this was not raised yet: all of them together.
        """
        self._steps.check_caller("flush")
        await self._done(self._steps.mark(), timeout)
        if seal:
            await in_thread(self._steps.seal)
        self._steps.raise_failures()

    async def close(self, *, timeout: float | None = None) -> None:
        """Accept no more samples, wait until every accepted one is stored, and let the workers go.

        Cancelled or out of time it leaves the samples queued and being stored; call it again to wait for them.

        Args:
            timeout: Seconds to wait in all. None waits without limit.

        Raises:
            FlushTimeoutError: Some samples are still pending.
            WriteError: Samples were not written, and this was not raised yet: all of them together.
        """
        self._steps.check_caller("close")
        await in_thread(self._steps.refuse)
        await self._done(None, timeout)
        # Nothing is left to wait for but the end of the workers.
        error = await in_thread(self._steps.finish)
        # Here, so that a call which is cancelled meanwhile leaves them to the next one.
        self._steps.raise_failures(error)

    async def abort(self) -> int:
        """Accept no more samples, drop those that no worker has begun, and let the workers go.

        Returns:
            How many samples were dropped; `stats` tells it as well.

        Raises:
            WriteError: Samples were not written, apart from the dropped ones, and this was not raised yet.
        """
        return await in_thread(self._writer.abort)

    def stats(self) -> WriterStats:
        """What was done so far."""
        return self._writer.stats()

    @property
    def state(self) -> State:
        """Where the writer stands in its life."""
        return self._writer.state

    def __repr__(self) -> str:
        return repr(self._writer).replace("BackgroundWriter", type(self).__name__, 1)

    async def __aenter__(self: _Self) -> _Self:
        await in_thread(self._writer.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await to_the_end(self.close)
        except Exception as error:
            if exception is None:
                raise
            attach(error, exception)

    async def _hand_over(self, names: Sequence[str] | None, plan: Plan, origin: Origin | None) -> None:
        began = perf_counter()
        waited = self._waiting
        streams = streams_of(plan.tensors)
        try:
            async with self._turn:
                if await self._tried(names, plan, origin, streams):
                    return
                waited = self._waiting = True
                try:
                    with self._changes() as change:
                        # Tried again after the bell was hung up, since room that came before did not ring it.
                        while not await self._tried(names, plan, origin, streams):
                            await change()
                finally:
                    self._waiting = False
        finally:
            if waited:
                self._steps.count_wait(perf_counter() - began)

    @contextmanager
    def _changes(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """While it is open: what to await for a change of what is pending."""
        loop = current_token()
        with uninterrupted():
            watch = self._watches.get(loop)
            if watch is None:
                watch = self._watches[loop] = Watch(self._steps)
            watch.users += 1
        try:
            yield watch.change
        finally:
            with uninterrupted():
                watch.users -= 1
                if not watch.users:
                    del self._watches[loop]
                    watch.close()

    async def _tried(
        self,
        names: Sequence[str] | None,
        plan: Plan,
        origin: Origin | None,
        streams: Callable[[], AbstractContextManager[None]],
    ) -> bool:
        def try_submit() -> bool:
            # The caller's own, also where another task has chosen others meanwhile.
            with streams():
                return self._steps.try_submit(names, plan, origin)

        copies = len(plan.sources) + len(plan.loose)
        is_small = plan.nbytes + plan.other_bytes + copies * _BYTES_PER_COPY <= _COPIED_ON_THE_LOOP
        if is_small and self._steps.has_workers:
            return try_submit()
        return await in_thread(try_submit)

    async def _done(self, mark: int | None, timeout: float | None) -> None:
        pending = self._steps.pending(mark)
        with anyio.move_on_after(timeout):
            with self._changes() as change:
                while pending := self._steps.pending(mark):
                    await change()
        if pending:
            raise self._steps.flush_timeout(pending, timeout)
