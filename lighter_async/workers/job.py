"""What a worker does with a sample, whatever kind of worker it is."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from lighter_async.errors import WriteError
from lighter_async.names import with_suffix
from lighter_async.types import PathTarget, Result, Target, Unit
from lighter_async.writers import Encoder, PathFunction, Writer

if TYPE_CHECKING:
    from lighter_async.staging import Staged

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """Writes the samples of a unit with one writer to one target.

    Nothing that a writer raises gets out: it becomes the sample's failure, and the next sample is written.
    """

    writer: Writer
    target: Target

    def run(self, unit: Unit) -> Result:
        """Write the samples one after the other, with an encoder or a plain path function."""
        result = Result()
        write = self._encode_and_put if isinstance(self.writer, Encoder) else self._call
        for index in range(unit.start, unit.stop):
            try:
                write(unit, index, result)
            except BaseException as error:
                result.failures.append(self._failure(unit.batch.names[index], error))
        del unit  # the frames of a failure that is kept keep this one too, which called them
        return result

    async def run_async(self, unit: Unit) -> Result:
        """Write the samples one after the other with an async path function."""
        result = Result()
        for index in range(unit.start, unit.stop):
            try:
                await self._await(unit, index, result)
            except BaseException as error:
                result.failures.append(self._failure(unit.batch.names[index], error))
        del unit  # the frames of a failure that is kept keep this one too, which called them
        return result

    def _encode_and_put(self, unit: Unit, index: int, result: Result) -> None:
        assert isinstance(self.writer, Encoder)
        name = with_suffix(unit.batch.names[index], self.writer.suffix)
        if self.target.keeps(name):
            result.skipped += 1
            return
        began = perf_counter()
        try:
            staged = _ready(unit)
            block = staged.block(index) if self.writer.takes_blocks else None
            parts = None if block is None else self.writer.encode_block(block)
            if parts is None:
                parts = self.writer.encode(staged.value(index))
        finally:
            encoded = perf_counter()
            result.encode_seconds += encoded - began
        try:
            stored = self.target.put(name, parts)
        finally:
            result.store_seconds += perf_counter() - encoded
        if stored:
            result.written += 1
            result.bytes_written += sum(part.nbytes for part in parts)
        else:
            result.skipped += 1

    def _call(self, unit: Unit, index: int, result: Result) -> None:
        function, path, value = self._call_of(unit, index)
        began = perf_counter()
        try:
            returned = function(path, value)
        finally:
            result.store_seconds += perf_counter() - began
        if inspect.isawaitable(returned):
            if inspect.iscoroutine(returned):
                returned.close()
            raise TypeError(
                f"writer {self.writer.name!r} returned an awaitable, but it is no async function, so nobody awaits it; "
                "define it with 'async def'"
            )
        result.written += 1

    async def _await(self, unit: Unit, index: int, result: Result) -> None:
        function, path, value = self._call_of(unit, index)
        began = perf_counter()
        try:
            await function(path, value)
        finally:
            result.store_seconds += perf_counter() - began
        result.written += 1

    def _call_of(self, unit: Unit, index: int) -> tuple[Callable[[Path, Any], Any], Path, Any]:
        assert isinstance(self.writer, PathFunction)
        assert isinstance(self.target, PathTarget)
        return self.writer.function, self.target.path(unit.batch.names[index]), _ready(unit).own_value(index)

    def _failure(self, name: str, error: BaseException) -> WriteError:
        # A failure is kept until the caller asks, and the frames of its traceback would keep the sample with it:
        # views of a slot that the next batch overwrites, or a value as large as the batch.
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next  # the frame that catches still runs
        seen: set[int] = set()
        link: BaseException | None = error
        while link is not None and id(link) not in seen:
            seen.add(id(link))
            traceback.clear_frames(link.__traceback__)
            link = link.__cause__ or link.__context__
        return WriteError.of_sample(error, writer=self.writer.name, name=name)


def _ready(unit: Unit) -> Staged:
    """The unit's values, once an accelerator's copy of them has arrived."""
    staged = unit.batch.staged
    if staged.ready is not None:
        staged.ready.synchronize()
    return staged
