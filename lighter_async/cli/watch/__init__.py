"""``lighter-async watch``: how a run goes on, in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

from rich.console import Console
from rich.live import Live

from lighter_async.cli.outlets import has_reader
from lighter_async.cli.watch.counts import Watched
from lighter_async.cli.watch.view import as_line, as_screen
from lighter_async.cli.words import refuse
from lighter_async.errors import LighterAsyncError

__all__ = ["run_watch"]

_SECONDS_ON_SCREEN, _SECONDS_BETWEEN_LINES = 0.5, 5.0


def run_watch(
    directory: Path,
    *,
    seconds: float | None = None,
    console: Console | None = None,
    pause: Callable[[float], object] = sleep,
    clock: Callable[[], float] = monotonic,
) -> int:
    """Show what a run stores, until it ends, or Ctrl-C.

    Where no run is at work, what the last one has stored is shown once. Where there was none yet, it is waited for.

    Args:
        directory: What the writer was given: the directory, or the path of an array or a table.
        seconds: How long to wait between two looks.
        console: Where to draw; without a terminal, or on one that cannot move its cursor, lines are printed.
        pause: Waits.
        clock: Seconds, from any moment on.

    Returns:
        0, or 2 if the records cannot be read.
    """
    console = Console() if console is None else console
    watched = Watched(directory, clock=clock)
    try:
        if console.is_terminal and not console.is_dumb_terminal:
            _draw(watched, console, seconds or _SECONDS_ON_SCREEN, pause)
        else:
            _print(watched, console, seconds or _SECONDS_BETWEEN_LINES, pause)
    except KeyboardInterrupt:
        pass  # as one leaves it
    except (LighterAsyncError, OSError) as error:
        return refuse(str(error))
    return 0


def _draw(watched: Watched, console: Console, seconds: float, pause: Callable[[float], object]) -> None:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            goes_on = watched.look()
            live.update(as_screen(watched), refresh=True)
            if not goes_on or not has_reader(console.file):
                return
            pause(seconds)


def _print(watched: Watched, console: Console, seconds: float, pause: Callable[[float], object]) -> None:
    while True:
        goes_on = watched.look()
        print(as_line(watched), file=console.file, flush=True)
        if not goes_on or not has_reader(console.file):  # who has seen enough leaves, as `head` does
            return
        pause(seconds)
