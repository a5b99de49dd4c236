"""What a worker does with a sample, whatever kind of worker it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from lighter_async.errors import WriteError, WriteTimeoutError
from lighter_async.manifest import Stored
from lighter_async.names import with_suffix
from lighter_async.session import Session
from lighter_async.targets import Item, Lane, Part, PathTarget
from lighter_async.types import Result, Unit
from lighter_async.workers.patience import Patience
from lighter_async.workers.quarantine import Quarantine
from lighter_async.workers.work import Abandoned, Work, ready
from lighter_async.writers import Output, PathFunction, Writer, outputs_of

__all__ = ["Job"]


def _ignore_progress(_: int | None) -> None:
    return


@dataclass(frozen=True)
class Job:
    """Writes the samples of a unit with one writer to one target, and records them.

    No exception of a writer leaves it: each becomes the failure of its sample, and the next sample is written.

    Attributes:
        writer: Makes bytes, or a file, of a value.
        session: Where the bytes go, and stored samples are recorded.
        patience: Which errors are tried again, and for how long.
        quarantine: Where values that could not be written are kept; None if they are not kept.
        outputs: What is stored of each sample; none of a function ``(path, value)``.
    """

    writer: Writer
    session: Session
    patience: Patience = field(default_factory=Patience)
    quarantine: Quarantine | None = None
    outputs: tuple[Output, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", outputs_of(self.writer))

    def run(self, unit: Unit, lane: Lane, on_progress: Callable[[int | None], None] = _ignore_progress) -> Result:
        """Write the samples one after the other, with an encoder or a plain path function.

        Args:
            unit: The samples.
            lane: The worker's own.
            on_progress: Called with the index of a sample when an attempt to write it begins, and with None before a
                wait.

        Raises:
            Abandoned: By `on_progress`, in a thread that was abandoned after a timeout.
        """
        work = Work(self, unit, lane, on_progress=on_progress)
        write = self._encode_and_put if self.outputs else self._call
        try:
            for index in range(unit.start, unit.stop):
                if work.is_recorded(index):
                    continue
                work.begin(index)
                try:
                    write(work, index)
                except BaseException as error:
                    work.fail(index, error)
            return work.settle()
        except Abandoned:
            work.leave()
            raise

    async def run_async(self, unit: Unit) -> Result:
        """Write the samples one after the other with an async path function."""
        work = Work(self, unit)
        for index in range(unit.start, unit.stop):
            work.begin(index)
            try:
                await self._await(work, index)
            except BaseException as error:
                work.fail(index, error)
        return work.settle()

    def fail(self, unit: Unit, error: BaseException, attempts: int) -> Result:
        """Fail every sample of a unit."""
        work = Work(self, unit, attempts=attempts)
        for index in range(unit.start, unit.stop):
            work.fail(index, error)
        return work.result

    def encode(self, unit: Unit, index: int) -> Item:
        """A sample as bytes, with encoders."""
        staged, name = ready(unit), unit.batch.names[index]
        parts = []
        for output in self.outputs:
            encoder, data = output.encoder, None
            block = staged.block(index, output.key) if encoder.takes_blocks else None
            if block is not None:
                data = encoder.encode_block(block)
            if data is None:
                data = encoder.encode(staged.value(index, output.key))
            parts.append(Part(with_suffix(name, output.suffix), output.suffix, data))
        return Item(name, parts)

    def _encode_and_put(self, work: Work, index: int) -> None:
        unit, result = work.unit, work.result
        if not unit.redelivered and self._is_kept(unit.batch.names[index]):
            result.skipped += 1
            return
        began = perf_counter()
        try:
            item = self.encode(unit, index)
        finally:
            encoded = perf_counter()
            result.encode_seconds += encoded - began
        try:
            work.put(index, item)
        finally:
            result.store_seconds += perf_counter() - encoded

    def _is_kept(self, name: str) -> bool:
        """Whether a sample of an earlier run stays as it is, so that it need not be encoded."""
        keeps = self.session.target.keeps
        for output in self.outputs:  # noqa: SIM110 - it runs for every sample, and a generator takes longer
            if not keeps(with_suffix(name, output.suffix)):
                return False
        return True

    def _call(self, work: Work, index: int) -> None:
        began = perf_counter()
        try:
            work.attempt(partial(self._call_once, work.unit, index))
        finally:
            work.result.store_seconds += perf_counter() - began
        work.stored.append(Stored(index, ()))

    def _call_once(self, unit: Unit, index: int) -> None:
        function, path, value = self._call_of(unit, index)
        returned = function(path, value)
        if inspect.isawaitable(returned):
            if inspect.iscoroutine(returned):
                returned.close()
            raise TypeError(
                f"writer {self.writer.name!r} returned an awaitable, but it is no async function, so nobody awaits it; "
                "define it with 'async def'"
            )

    async def _await(self, work: Work, index: int) -> None:
        began = perf_counter()

        try:
            await work.attempt_async(partial(self._await_once, work.unit, index))
        finally:
            work.result.store_seconds += perf_counter() - began
        work.stored.append(Stored(index, ()))

    async def _await_once(self, unit: Unit, index: int) -> None:
        function, path, value = self._call_of(unit, index)
        limit = self.patience.write_timeout
        if limit is None:
            await function(path, value)
            return
        import anyio  # which helpers do without

        try:
            with anyio.fail_after(limit) as scope:
                await function(path, value)
        except TimeoutError as error:
            if not scope.cancelled_caught:
                raise
            raise WriteTimeoutError(f"writing took longer than write_timeout={limit:g} s") from error

    def _call_of(self, unit: Unit, index: int) -> tuple[Callable[[Path, Any], Any], Path, Any]:
        assert isinstance(self.writer, PathFunction)
        target = self.session.target
        assert isinstance(target, PathTarget)
        return self.writer.function, target.path(unit.batch.names[index]), ready(unit).own_value(index)

    def failure(self, name: str, error: BaseException, attempts: int) -> WriteError:
        """The failure of one sample."""
        return WriteError.of_sample(error, writer=self.writer.name, name=name, attempts=attempts)
