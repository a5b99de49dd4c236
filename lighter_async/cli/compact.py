"""``lighter-async compact``: rewrite tar shards without what nobody needs any more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from lighter_async.cli.steps import step
from lighter_async.cli.words import counted, printable, refuse, say
from lighter_async.errors import LighterAsyncError
from lighter_async.targets.shards.compact import Compaction, compact

__all__ = ["run_compact"]


def run_compact(directory: Path, *, dry_run: bool) -> int:
    """Rewrite a directory's shards, and say what that has freed.

    Args:
        directory: Where the shards are.
        dry_run: Only say what would be done.

    Returns:
        0 if all was done, 1 if a shard was left since a sample in it is damaged, or something could not be written; 2
        if nothing was tried: there are no shards or no manifest, or a writer is at work.
    """
    with ExitStack() as stack:

        def begin(total: int) -> Callable[[], None]:
            title = f"Rewriting {counted(total, 'shard')} of {directory}"
            return stack.enter_context(step(Console(stderr=True), title, total))

        try:
            done = compact(directory, dry_run=dry_run, begin=begin)
        except (LighterAsyncError, FileNotFoundError) as error:
            return refuse(str(error))
        except OSError as error:
            say(f"{directory} cannot be compacted, or not all of it; no sample is lost, so run it again: {error}")
            return 1
    _print(directory, done, dry_run=dry_run)
    return 1 if done.damaged else 0


def _print(directory: Path, done: Compaction, *, dry_run: bool) -> None:
    touched = len(done.rewritten) + len(done.removed)
    print(f"{directory}: {counted(done.checked, 'shard')}, of which {touched} with members that nobody needs")
    for name in done.removed:
        print(f"  {'would remove' if dry_run else 'removed'} {name}")
    for name in done.rewritten:
        print(f"  {'would rewrite' if dry_run else 'rewrote'} {name}")
    for name in done.made:
        print(f"  made {name}")
    for name in done.unknown:
        print(f"  left {name}: no manifest has told of all that it holds, so what is needed is not known")
    for name, why in done.damaged:
        say(f"left {name}: {printable(why)}; verify --repair drops what is damaged")
    if done.past:
        members = counted(done.past, "member")
        print(f"  {members} of runs that count no longer, since a later run began without resume=True")
    dropped, freed = counted(done.dropped, "member"), f"{done.freed / 1e6:.1f} MB"
    print(f"would drop {dropped} and free {freed}" if dry_run else f"dropped {dropped} and freed {freed}")
