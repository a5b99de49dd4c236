"""Run the demo from beginning to end."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console

from lighter_async.advice import judge
from lighter_async.callback import FileWriter
from lighter_async.cli.demo import DemoOptions
from lighter_async.cli.demo.check import differing_files
from lighter_async.cli.demo.folders import files_below, prepare_folder
from lighter_async.cli.demo.model import EdgesAndTextures
from lighter_async.cli.demo.photographs import PATCH_PIXELS, Patches, load_photographs
from lighter_async.cli.demo.report import comparison_table, writers_table
from lighter_async.cli.demo.runs import WRITERS, run_inline, run_lightning, warm_up
from lighter_async.cli.steps import step
from lighter_async.limits import usable_cores

__all__ = ["run_job"]

_LISTED = 20


def run_job(options: DemoOptions) -> int:
    """Predict and write in the background, report on it, and compare every file with a synchronous run.

    Returns:
        The exit code: 0 if every file is equal, 1 if not.

    Raises:
        OSError: The output cannot be written.
        WriteError: Samples were not written.
        KeyboardInterrupt: Ctrl-C.
    """
    # No markup, since paths may contain brackets.
    console = Console(markup=False, highlight=False, soft_wrap=True)
    folders = {output.key: options.output / output.key for output in WRITERS}
    for folder in folders.values():
        prepare_folder(folder)
    strangers = {key: files_below(folder) for key, folder in folders.items()}

    photographs = load_photographs()
    patches = Patches(photographs, options.patches)
    model = EdgesAndTextures().eval()
    warm_up(model, patches, options.batch_size)
    console.print(
        f"{len(patches):,} patches of {PATCH_PIXELS} x {PATCH_PIXELS} pixels from {len(photographs)} photographs, "
        f"predicted in batches of {options.batch_size} on {usable_cores()} cores"
    )

    writers = [
        FileWriter(
            folders[output.key],
            output.key,
            output.writer,
            "name",
            max_workers=options.max_workers,
            queue_size=options.queue_size,
        )
        for output in WRITERS
    ]
    show = console.is_terminal
    console.print("1. Lightning predicts, two FileWriters write in the background")
    background, stats = run_lightning(model, patches, options.batch_size, writers=writers, show_progress=show)
    console.print("2. The same without writing, to compare")
    alone, _ = run_lightning(model, patches, options.batch_size, show_progress=show)
    # On the same disk, and gone afterwards.
    with tempfile.TemporaryDirectory(dir=options.output, prefix=".inline-") as temporary:
        expected = {key: Path(temporary, key) for key in folders}
        batches = -(-len(patches) // options.batch_size)
        with step(console, "3. The same in a plain loop that writes inline, to compare", batches) as tick:
            inline = run_inline(model, patches, options.batch_size, expected, tick)
        written = {key: files_below(folder) for key, folder in folders.items()}
        # A file that is missing counts as much as one that is different or that nobody asked for.
        ours = {key: (written[key] - strangers[key]) | files_below(expected[key]) for key in folders}
        total = sum(map(len, ours.values()))
        with step(console, "4. Reading every file back", total) as tick:
            differing = [
                f"{folders[key].name}/{line}"
                for key in folders
                for line in differing_files(folders[key], expected[key], ours[key], tick)
            ]

    console.print()
    console.print(writers_table(stats, {key: len(ours[key] & written[key]) for key in ours}, background))
    console.print(
        judge(
            {f"the {output.key} ({output.writer.name})": stats[output.key] for output in WRITERS},
            cores=usable_cores(),
            left_seconds=background.total - background.loop,
            slowdown=background.loop / alone.loop,
        ).sentence
    )
    console.print()
    console.print(comparison_table(alone, background, inline))
    if differing:
        console.print(f"\n{len(differing):,} of {total:,} files differ from the synchronous run:")
        for line in differing[:_LISTED]:
            console.print(f"  {line}")
        if len(differing) > _LISTED:
            console.print(f"  and {len(differing) - _LISTED:,} more")
        return 1
    console.print(f"\nall {total:,} files equal the synchronous run")

    from lighter_async.cli.demo.sheet import draw_sheet

    sheet = options.output / "contact-sheet.png"
    draw_sheet(patches, folders["edges"], folders["textures"]).save(sheet)
    console.print(f"files: {' and '.join(str(folder) for folder in folders.values())}")
    console.print(f"to look at: {sheet}")
    return 0
