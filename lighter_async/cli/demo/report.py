"""The tables that the demo prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lighter_async.cli.demo.rounds import Compared
from lighter_async.cli.demo.runs import Clock
from lighter_async.types import WriterStats

__all__ = ["costs_table", "writers_table"]


def writers_table(stats: Mapping[str, WriterStats], files: Mapping[str, int], clock: Clock) -> Table:
    """What was written in the background, by writer and in total.

    Args:
        stats: What each writer counted, by its name.
        files: The number of files in each writer's folder.
        clock: The run's seconds.
    """
    table = _table("writer", ("samples", "files", "MB", "seconds", "loop waited", "peak queue"))
    for name, one in stats.items():
        table.add_row(
            name,
            f"{one.written:,}",
            f"{files[name]:,}",
            f"{one.bytes_written / 1e6:.1f}",
            f"{one.open_seconds:.1f}",
            f"{one.waited_seconds:.2f} s",
            _peak(one),
        )
    table.add_section()
    table.add_row(
        "both",
        f"{sum(one.written for one in stats.values()):,}",
        f"{sum(files.values()):,}",
        f"{sum(one.bytes_written for one in stats.values()) / 1e6:.1f}",
        f"{clock.total:.1f}",
        f"{sum(one.waited_seconds for one in stats.values()):.2f} s",
        "",
    )
    return table


def costs_table(figures: Sequence[Compared]) -> Table:
    """What each loop took with each way of writing, narrow enough for a terminal of 80 columns."""
    headings = [heading for one in figures for heading in (f"{one.loop.heading}\nseconds", "\n\nratio")]
    table = _table("", headings)
    for title in figures[0].seconds:
        cells = [cell for one in figures for cell in (f"{one.seconds[title]:.2f}", f"{one.ratios[title]:.2f}")]
        table.add_row(title, *cells)
    return table


def _table(first: str, headings: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _peak(stats: WriterStats) -> str:
    """How full the queue was, by the bound that came nearer to being reached."""
    if stats.peak_pending_bytes / stats.queue_bytes > stats.peak_pending / stats.queue_size:
        return f"{stats.peak_pending_bytes / 1e6:,.1f} of {stats.queue_bytes / 1e6:,.0f} MB"
    return f"{stats.peak_pending:,} of {stats.queue_size:,}"
