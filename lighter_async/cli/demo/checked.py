"""The first part: a job that writes in the background, whose every file is compared with a synchronous run's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from lighter_async.callback import FileWriter
from lighter_async.cli.bench.folders import fresh_folder
from lighter_async.cli.demo.differences import differing_files
from lighter_async.cli.demo.folders import files_below
from lighter_async.cli.demo.model import EdgesAndTextures
from lighter_async.cli.demo.photographs import Patches
from lighter_async.cli.demo.report import writers_table
from lighter_async.cli.demo.runs import WRITERS, batches_of, run_inline, run_lightning
from lighter_async.cli.demo.ways import WriterOptions
from lighter_async.cli.steps import step

__all__ = ["run_and_check"]

_LISTED = 20


def run_and_check(
    console: Console,
    folders: Mapping[str, Path],
    place: Path,
    *,
    model: EdgesAndTextures,
    patches: Patches,
    batch_size: int,
    options: WriterOptions,
) -> bool:
    """Run the job, report on it, and compare its files.

    Args:
        console: Where it is told.
        folders: Where each output goes. What is there already is left out of account.
        place: Where the synchronous run has a folder, on the same disk, while it is needed.
        model: The model.
        patches: The input.
        batch_size: Patches in a batch.
        options: Of each writer.

    Returns:
        Whether every file equals the synchronous run's.
    """
    strangers = {key: files_below(folder) for key, folder in folders.items()}
    writers = {
        output.key: FileWriter(
            folders[output.key],
            output.key,
            output.writer,
            "name",
            max_workers=options.max_workers,
            queue_size=options.queue_size,
        )
        for output in WRITERS
    }
    batches = batches_of(patches, batch_size)
    clock = run_lightning(model, batches, [*writers.values()], show_progress=console.is_terminal)
    with fresh_folder(place, prefix=".lighter-async-demo-") as temporary:
        expected = {key: temporary / key for key in folders}
        title = "   the same in a plain loop that writes inline, to compare"
        with step(console, title, -(-len(patches) // batch_size)) as tick:
            run_inline(model, patches, batch_size, expected, tick)
        written = {key: files_below(folder) for key, folder in folders.items()}
        # A file that is missing counts as much as one that is different or that nobody asked for.
        ours = {key: (written[key] - strangers[key]) | files_below(expected[key]) for key in folders}
        total = sum(map(len, ours.values()))
        with step(console, "   reading every file back", total) as tick:
            differing = [
                f"{folders[key].name}/{line}"
                for key in folders
                for line in differing_files(folders[key], expected[key], ours[key], tick)
            ]
    counts = {key: len(ours[key] & written[key]) for key in ours}
    console.print(writers_table({key: writer.stats() for key, writer in writers.items()}, counts, clock))
    if not differing:
        console.print(f"all {total:,} files equal the synchronous run")
        return True
    console.print(f"{len(differing):,} of {total:,} files differ from the synchronous run:")
    for line in differing[:_LISTED]:
        console.print(f"  {line}")
    if len(differing) > _LISTED:
        console.print(f"  and {len(differing) - _LISTED:,} more")
    return False
