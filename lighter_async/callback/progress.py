"""Progress of the writing, beside Lightning's own progress bar and after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

from lighter_async.errors import FlushTimeoutError
from lighter_async.service import BackgroundWriter
from lighter_async.types import WriterStats

__all__ = ["Progress", "progress_of"]

_SECONDS_BETWEEN = 0.25


class Progress:
    """Shows how full the queues are and how fast they empty, where Lightning shows a progress bar.

    Args:
        bar: The trainer's progress bar callback, if any. Only Lightning's tqdm and rich bars are used.
        writers: The writers to show together. With none, another `Progress` on this bar shows them.
    """

    def __init__(self, bar: Any, writers: Sequence[BackgroundWriter]) -> None:
        self._bar = bar
        self._writers = writers
        self._shown = monotonic()
        self._written = 0

    def update(self) -> None:
        """Show the queues, unless they were shown a moment ago."""
        now = monotonic()
        if self._bar is None or not self._writers or now - self._shown < _SECONDS_BETWEEN:
            return
        stats = [writer.stats() for writer in self._writers]
        written = sum(one.written for one in stats)
        rate = (written - self._written) / (now - self._shown)
        self._shown, self._written = now, written
        self._show(f"queue {_filling(stats)}, writing {rate:.0f}/s in {_workers(stats)}")

    def _show(self, text: str) -> None:
        tqdm = getattr(self._bar, "_predict_progress_bar", None)
        if tqdm is not None:
            tqdm.set_postfix_str(text, refresh=False)
            return
        progress, task = getattr(self._bar, "progress", None), getattr(self._bar, "predict_progress_bar_id", None)
        if progress is not None and task in progress.task_ids:
            # In round brackets, since rich takes square ones for markup and does not show them.
            beside = f" ({text})" if text else ""
            progress.update(task, description=f"{self._bar.predict_description}{beside}")

    def flush(self, writer: BackgroundWriter, is_over: Callable[[], bool] = lambda: False) -> None:
        """Flush a writer, and show a bar of the samples that are left if that takes a while.

        Args:
            writer: The writer.
            is_over: Called now and then. Returns whether to stop waiting for the rest.

        Raises:
            WriteError: As `BackgroundWriter.flush`.
        """
        if self._bar is None:
            while not is_over():
                try:
                    writer.flush(timeout=_SECONDS_BETWEEN)
                    return
                except FlushTimeoutError:
                    continue
            return
        self._show("")  # or the bar would keep showing the queue at the loop's end
        try:
            writer.flush(timeout=2 * _SECONDS_BETWEEN)
            return
        except FlushTimeoutError as error:
            left = error.pending
        with self._bar_of_remaining(left) as show:
            while left and not is_over():
                try:
                    writer.flush(timeout=_SECONDS_BETWEEN)
                    left = 0
                except FlushTimeoutError as error:
                    left = error.pending
                show(left)

    @contextmanager
    def _bar_of_remaining(self, total: int) -> Iterator[Callable[[int], object]]:
        progress = getattr(self._bar, "progress", None)
        if progress is not None:
            # A bar of another kind below rich's, which are drawn in place, would print a new line at every step.
            task = progress.add_task("Writing", total=total)
            try:
                yield lambda left: progress.update(task, completed=total - left, refresh=True)
            finally:
                progress.remove_task(task)
            return
        from tqdm.auto import tqdm

        with tqdm(desc="Writing", total=total, unit="sample", leave=False) as bar:
            yield lambda left: bar.update(total - left - bar.n)


def _filling(stats: Sequence[WriterStats]) -> str:
    """How full the queues are, by the bound that is nearer to being reached."""
    pending, room = sum(one.pending for one in stats), sum(one.queue_size for one in stats)
    held, most = sum(one.pending_bytes for one in stats), sum(one.queue_bytes for one in stats)
    if held * room > pending * most:
        return f"{pending}, {held / 1e6:.0f}/{most / 1e6:.0f} MB"
    return f"{pending}/{room}"


def _workers(stats: Sequence[WriterStats]) -> str:
    """What the workers are, in the order of the writers."""
    words = {"thread": "threads", "process": "helpers"}
    return " and ".join(dict.fromkeys(words[one.backend] for one in stats))


def progress_of(trainer: Any, writers: Sequence[BackgroundWriter]) -> Progress:
    """Progress beside a trainer's bar, if this rank shows one."""
    bar = trainer.progress_bar_callback
    shown = bar is not None and trainer.is_global_zero and not getattr(bar, "is_disabled", False)
    return Progress(bar if shown else None, writers)
