"""Run the loop once, with or without writing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from lighter_async.cli.bench.backends import running_writer
from lighter_async.cli.bench.folders import stored_bytes
from lighter_async.cli.bench.grid import INLINE, Setting, Turn
from lighter_async.cli.bench.loops import Step
from lighter_async.cli.bench.workload import Workload
from lighter_async.errors import LighterAsyncError, describe
from lighter_async.service import BackgroundWriter
from lighter_async.types import WriterStats
from lighter_async.writers import Encoder, PathFunction, resolve_writer

__all__ = ["WARM_UP_SECONDS", "Job", "Run", "inline_writer", "warm_up_batches"]

WARM_UP_SECONDS = 0.5
"""The time that the workers have to start before the loop does."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run took.

    Attributes:
        setting: The writer's setting; None if nothing was written, or inline.
        round: The repeat that it belongs to.
        loop_seconds: From the first step to the end of the last hand-over.
        total_seconds: Until everything was stored.
        left: Samples that were not stored yet when the loop ended.
        stored_bytes: The bytes of the files.
        stats: What the writer counted from the first step on; None without a background writer.
        inline: Whether the loop wrote each batch itself.
    """

    setting: Setting | None
    round: int
    loop_seconds: float
    total_seconds: float
    left: int = 0
    stored_bytes: int = 0
    stats: WriterStats | None = None
    inline: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all runs have in common.

    Attributes:
        workload: The workload.
        writer: The writer's name.
        batches: The batches to hand over, in turn.
        step: The step before each hand-over.
        steps: The number of steps.
        folder: Where each run makes its folder.
    """

    workload: Workload
    writer: str
    batches: Sequence[Any]
    step: Step
    steps: int
    folder: Path

    def run(self, turn: Turn, number: int) -> Run:
        """Run the loop once, and remove the files.

        Args:
            turn: How it writes.
            number: The repeat that it belongs to.

        Raises:
            LighterAsyncError: Samples were not written.
            KeyboardInterrupt: Ctrl-C. What was queued is dropped.
        """
        if turn is None:
            seconds = self._loop(lambda names, batch: None)
            return Run(setting=None, round=number, loop_seconds=seconds, total_seconds=seconds)
        folder = self.folder / "run"
        try:
            return self._write_inline(number, folder) if turn == INLINE else self._write(turn, number, folder)
        finally:
            if folder.exists():
                shutil.rmtree(folder)

    def _write(self, setting: Setting, number: int, folder: Path) -> Run:
        with running_writer(self.writer, folder, **setting.options()) as writer:
            self._warm_up(writer)
            before, prepared = writer.stats(), stored_bytes(folder)
            began = perf_counter()
            loop_seconds = self._loop(writer.submit_batch)
            left = writer.stats().pending
            writer.flush()
            total_seconds = perf_counter() - began
            stats = _since(before, writer.stats(), total_seconds)
        return Run(
            setting=setting,
            round=number,
            loop_seconds=loop_seconds,
            total_seconds=total_seconds,
            left=left,
            stored_bytes=stored_bytes(folder) - prepared,
            stats=stats,
        )

    def _write_inline(self, number: int, folder: Path) -> Run:
        write = inline_writer(self.writer)
        assert write is not None  # else there is no such turn
        folder.mkdir()

        def submit(names: list[str], batch: Any) -> None:
            for name, value in zip(names, batch, strict=True):
                write(folder / name, value)

        try:
            submit([f"warm-up-{name}" for name in self.workload.names(0)], self.batches[0])
            prepared = stored_bytes(folder)
            seconds = self._loop(submit)
        except OSError:
            raise
        except Exception as error:
            raise LighterAsyncError(f"writer {self.writer!r} failed inline: {describe(error)}") from error
        return Run(
            setting=None,
            round=number,
            loop_seconds=seconds,
            total_seconds=seconds,
            stored_bytes=stored_bytes(folder) - prepared,
            inline=True,
        )

    def _loop(self, submit: Callable[[list[str], Any], None]) -> float:
        run, batches, workload = self.step.run, self.batches, self.workload
        began = perf_counter()
        for number in range(self.steps):
            run()
            submit(workload.names(number), batches[number % len(batches)])
        return perf_counter() - began

    def _warm_up(self, writer: BackgroundWriter) -> None:
        """Have the workers write something: a job is long, so their start is not part of the comparison."""
        began = perf_counter()
        for number in range(warm_up_batches(writer.max_workers)):
            names = [f"warm-up-{name}" for name in self.workload.names(number)]
            writer.submit_batch(names, self.batches[number % len(self.batches)])
            writer.flush()
        sleep(max(0.0, began + WARM_UP_SECONDS - perf_counter()))


def inline_writer(name: str) -> Callable[[Path, Any], Any] | None:
    """What writes a sample to a path without a suffix, and returns when it is written; None of an async function."""
    writer = resolve_writer(name)
    if isinstance(writer, PathFunction):
        return None if writer.is_async else writer.function
    return writer if isinstance(writer, Encoder) else None


def warm_up_batches(max_workers: int) -> int:
    """How many batches are written before the loop starts."""
    return 2 * max_workers


def _since(before: WriterStats, after: WriterStats, seconds: float) -> WriterStats:
    """The difference of two counts that are `seconds` apart. Peaks are those of the whole time."""
    counts = ("accepted", "written", "skipped", "failed", "bytes_written", "waits")
    times = ("waited_seconds", "encode_seconds", "store_seconds")
    changes: dict[str, Any] = {name: getattr(after, name) - getattr(before, name) for name in (*counts, *times)}
    return replace(after, **changes, open_seconds=seconds)
