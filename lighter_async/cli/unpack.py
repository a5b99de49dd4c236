"""``lighter-async unpack``: make files of the samples of tar shards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from lighter_async.cli.steps import step
from lighter_async.cli.words import counted, printable, refuse, say
from lighter_async.errors import LighterAsyncError
from lighter_async.targets.shards.unpack import unpack

__all__ = ["run_unpack"]

_SHOWN = 20


def run_unpack(directory: Path, out: Path, *, writer: str | None, key: str | None) -> int:
    """Make files of the samples of shards, and say how many.

    Args:
        directory: Where the shards are.
        out: Where the files go.
        writer: Only what this writer has stored; None for any.
        key: Only what was stored with this key; None for any.

    Returns:
        0 if all are there, 1 if some are damaged or cannot be stored, 2 if nothing was tried.
    """
    with ExitStack() as stack:

        def begin(total: int) -> Callable[[], None]:
            return stack.enter_context(step(Console(stderr=True), f"Unpacking {total} files to {out}", total))

        try:
            done = unpack(directory, out, writer=writer, key=key, begin=begin)
        except (LighterAsyncError, ValueError, FileNotFoundError, NotADirectoryError) as error:
            return refuse(str(error))
        except OSError as error:
            say(f"not all of {directory} could be unpacked; run it again, and it goes on with what is missing: {error}")
            return 1
    for name, why in done.failed[:_SHOWN]:
        say(f"{printable(name)} is left out: {why}")
    if len(done.failed) > _SHOWN:
        say(f"and {len(done.failed) - _SHOWN} more are left out")
    print(f"{out}: stored {counted(done.stored, 'file')}, {done.nbytes / 1e6:.1f} MB")
    if done.kept:
        print(f"  {counted(done.kept, 'file')} had been stored before")
    if done.others:
        print(
            f"  {counted(done.others, 'sample')} of {directory} in no shard, but a file or a row each, and not copied"
        )
    return 1 if done.failed else 0
