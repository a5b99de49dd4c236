"""The tables that the demo prints at its end."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from lighter_async.cli.demo.runs import Clock
from lighter_async.types import WriterStats

__all__ = ["comparison_table", "writers_table"]


def writers_table(stats: Mapping[str, WriterStats], files: Mapping[str, int], clock: Clock) -> Table:
    """What was written in the background, by writer and in total.

    Args:
        stats: What each writer counted, by its name.
        files: The number of files in each writer's folder.
        clock: The run's seconds.
    """
    table = Table(title="Written in the background", title_justify="left")
    table.add_column("writer")
    for heading in ("samples", "files", "MB", "seconds", "loop waited", "peak queue"):
        table.add_column(heading, justify="right")
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


def _peak(stats: WriterStats) -> str:
    """How full the queue was, by the bound that came nearer to being reached."""
    if stats.peak_pending_bytes / stats.queue_bytes > stats.peak_pending / stats.queue_size:
        return f"{stats.peak_pending_bytes / 1e6:,.1f} of {stats.queue_bytes / 1e6:,.0f} MB"
    return f"{stats.peak_pending:,} of {stats.queue_size:,}"


def comparison_table(alone: Clock, background: Clock, inline: Clock) -> Table:
    """The seconds of the three runs, and their ratios to the loop that wrote nothing."""
    table = Table(title="The same predictions, in this one run on this machine", title_justify="left")
    table.add_column("")
    for heading in ("loop", "until stored", "ratio"):
        table.add_column(heading, justify="right")
    table.add_row("Lightning, nothing written", f"{alone.loop:.1f} s", "", "1.00")
    for name, clock in [
        ("Lightning, written in the background", background),
        ("plain loop, written inline", inline),
    ]:
        table.add_row(name, f"{clock.loop:.1f} s", f"{clock.total:.1f} s", f"{clock.total / alone.loop:.2f}")
    return table
