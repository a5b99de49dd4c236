"""How a run that is watched looks, on a screen and as a line."""

from __future__ import annotations

from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lighter_async.cli.watch.counts import Watched
from lighter_async.cli.words import counted, printable

__all__ = ["as_line", "as_screen"]

_MOST_RANKS = 16  # that are shown by themselves
_MOST_TEXT = 200  # characters of a name or an error


def as_line(watched: Watched) -> str:
    """What is known now, in one line."""
    if not watched.is_known:
        return f"waiting for a run to begin in {printable(str(watched.where))}"
    parts = [_state(watched), *_figures(watched)]
    if names := watched.names():
        parts.append(f"last {_short(names[-1])}")
    return "; ".join(parts)


def as_screen(watched: Watched) -> RenderableType:
    """What is known now, for a terminal."""
    if not watched.is_known:
        return Text(as_line(watched))
    parts: list[RenderableType] = [
        Text(f"{printable(str(watched.where))}: {_state(watched)}", style="bold"),
        Text("; ".join(_figures(watched))),
    ]
    ranks = watched.ranks()
    if len(ranks) > 1:
        parts.append(_ranks(watched))
    if names := watched.names():
        latest_first = ", ".join(map(_short, reversed(names)))
        parts.append(Text(f"last: {latest_first}", overflow="ellipsis", no_wrap=True))
    if errors := watched.errors():
        parts.append(Text(f"failed: {_short(errors[-1])}", style="red"))
    return Group(*parts)


def _ranks(watched: Watched) -> Table:
    ranks = watched.ranks()
    several = len(watched.shown) > 1
    table = Table(box=None, pad_edge=False)
    for title in (*(("run",) if several else ()), "rank", "samples", "MB", "last recorded"):
        table.add_column(title, justify="right")
    for sequence, rank, counts in ranks[:_MOST_RANKS]:
        cells = [str(rank), str(counts.samples), f"{counts.bytes / 1e6:.1f}", _clock(counts.last)]
        table.add_row(*([str(sequence)] if several else []), *cells)
    if len(ranks) > _MOST_RANKS:
        table.add_row(*([""] if several else []), f"and {len(ranks) - _MOST_RANKS} more")
    return table


def _state(watched: Watched) -> str:
    numbers = [watched.runs[id_].sequence for id_ in watched.shown]
    what = f"run {numbers[0]}" if len(numbers) == 1 else f"runs {', '.join(map(str, numbers))}"
    return what if watched.at_work else f"{what}, not at work"


def _figures(watched: Watched) -> list[str]:
    total = watched.total()
    samples = counted(total.samples, "sample")
    expected = watched.expected()
    rate, byte_rate = watched.rates()
    if expected:
        samples = f"{total.samples} of {counted(expected, 'sample')} ({total.samples / expected:.0%})"
    figures = [f"{samples}, {total.bytes / 1e6:.1f} MB"]
    everything = watched.total_with_earlier()
    if everything.samples > total.samples:
        figures.append(f"with earlier runs {counted(everything.samples, 'sample')}, {everything.bytes / 1e6:.1f} MB")
    if watched.at_work:
        figures.append(f"{rate:.1f} samples/s, {byte_rate / 1e6:.2f} MB/s")
    figures.append(f"{len(watched.errors())} failed")
    if (ranks := len({rank for _, rank, _ in watched.ranks()})) > 1:
        figures.append(f"{ranks} ranks")
    return figures


def _short(text: str) -> str:
    return printable(text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}...")


def _clock(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return "?"
