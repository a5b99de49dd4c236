"""Show the progress of a command's step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

__all__ = ["step"]


@contextmanager
def step(console: Console, title: str, total: int, *, undisturbed: bool = False) -> Iterator[Callable[[], None]]:
    """Print a step's title, and show a bar below it while the step runs, on a terminal.

    Args:
        console: The console to print on.
        title: The title.
        total: How often the function will be called.
        undisturbed: Draw the bar only when the function is called. A thread that draws it would share the interpreter
            with the code that is being measured.

    Yields:
        A function to call `total` times.
    """
    console.print(title)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal, auto_refresh=not undisturbed
    )
    with bar:
        task = bar.add_task("", total=total)

        def tick() -> None:
            bar.advance(task)
            if undisturbed:
                bar.refresh()

        yield tick
