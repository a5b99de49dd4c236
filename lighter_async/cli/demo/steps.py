"""Progress of a step of the demo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

__all__ = ["step"]


@contextmanager
def step(console: Console, title: str, total: int) -> Iterator[Callable[[], None]]:
    """Print a step's title, and show a bar below it while the step runs, on a terminal.

    Yields:
        A function to call `total` times.
    """
    console.print(title)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
