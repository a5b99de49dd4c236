"""What is said at the end of a run: a line of Lightning's own log, and metrics of the trainer's loggers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_info

from lighter_async.advice import is_held_up, judge
from lighter_async.errors import attach, describe
from lighter_async.limits import usable_cores
from lighter_async.types import WriterStats

__all__ = ["LastLine"]

_PREFIX = "lighter_async"


@dataclass
class LastLine:
    """What became of a run, and how long Lightning's loop waited for that.

    Attributes:
        location: Where its samples are stored.
        stored_before: Samples that were stored when the run began to resume, by whatever rank.
        left_out: Samples that were stored, of those that the loop has come by.
        end_seconds: How long the loop's end has waited until all was stored.
    """

    location: str
    stored_before: int = 0
    left_out: int = 0
    end_seconds: float = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time that is spent within."""
        began = perf_counter()
        try:
            yield
        finally:
            self.end_seconds += perf_counter() - began

    def say(self, trainer: Any, stats: WriterStats) -> None:
        """Log the line, on rank 0."""
        if not trainer.is_global_zero:
            return
        who = "wrote" if trainer.world_size == 1 else f"rank 0 of {trainer.world_size} wrote"
        size = f" ({_bytes(stats.bytes_written)})" if stats.bytes_written else ""
        others = [
            f"; {count:,} {what}"
            for count, what in (
                (self.stored_before, "had been stored before"),
                (stats.skipped, "kept their earlier files"),
                (stats.failed, "failed"),
                (stats.dropped, "were dropped"),
                (stats.pending, "are still being stored"),
            )
            if count
        ]
        samples = f"{stats.written:,} sample{'' if stats.written == 1 else 's'}"
        rank_zero_info(
            f"{_PREFIX}: {who} {samples}{size} to {self.location!r} in "
            f"{stats.open_seconds:.1f} s; the loop waited {stats.waited_seconds:.1f} s for room and "
            f"{self.end_seconds:.1f} s at the end{self._limit(stats)}{''.join(others)}"
        )

    def _limit(self, stats: WriterStats) -> str:
        """What held a run back that has waited for long, and what wrote it."""
        if not is_held_up(stats.waited_seconds + self.end_seconds, stats.open_seconds):
            return ""
        verdict = judge({self.location: stats}, cores=usable_cores(), left_seconds=self.end_seconds)
        workers = "threads" if stats.backend == "thread" else "helper processes"
        return f", held up by {verdict.limit} (in {workers}: {stats.backend_reason})"

    def log(
        self, trainer: Any, stats: WriterStats, writers: Sequence[Any], own: Any, exception: BaseException | None
    ) -> None:
        """Hand the same to the trainer's loggers, as metrics of rank 0.

        Args:
            trainer: Has the loggers.
            stats: What became of the samples.
            writers: All writers among the trainer's callbacks. The second one's metrics are ``lighter_async_2/…``.
            own: Whose metrics these are.
            exception: What ends the run, to which a logger's own error is attached.

        Raises:
            Exception: What a logger raises, where nothing else ends the run.
        """
        if not trainer.is_global_zero:
            return
        number = next((number for number, one in enumerate(writers, 1) if one is own), 1)
        prefix = _PREFIX if number == 1 else f"{_PREFIX}_{number}"
        metrics = {
            "written": stats.written,
            "skipped": stats.skipped,
            "left_out": self.left_out,
            "failed": stats.failed,
            "dropped": stats.dropped,
            "bytes_written": stats.bytes_written,
            "seconds": stats.open_seconds,
            "loop_waited_seconds": stats.waited_seconds,
            "end_waited_seconds": self.end_seconds,
        }
        for logger in trainer.loggers:
            try:
                logger.log_metrics(
                    {f"{prefix}/{name}": float(value) for name, value in metrics.items()}, step=trainer.global_step
                )
            except Exception as error:
                if exception is None:
                    raise
                attach(f"{type(logger).__name__} did not take what was written: {describe(error)}", exception)


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
