"""Run the demo from beginning to end: a job that is checked, what writing costs a loop, and a job that is killed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console

from lighter_async.cli.bench.folders import fresh_folder
from lighter_async.cli.demo import DemoOptions
from lighter_async.cli.demo.checked import run_and_check
from lighter_async.cli.demo.folders import prepare_folder
from lighter_async.cli.demo.killed import kill_and_resume
from lighter_async.cli.demo.loops import STEP_SECONDS, make_loops
from lighter_async.cli.demo.model import EdgesAndTextures
from lighter_async.cli.demo.others import Others, is_much
from lighter_async.cli.demo.photographs import PATCH_PIXELS, Patches, load_photographs
from lighter_async.cli.demo.report import costs_table
from lighter_async.cli.demo.rounds import ROUNDS, run_rounds
from lighter_async.cli.demo.runs import WRITERS
from lighter_async.cli.demo.sheet import draw_sheet
from lighter_async.cli.demo.verdict import verdict
from lighter_async.cli.demo.ways import WriterOptions, ways
from lighter_async.cli.steps import step
from lighter_async.cli.words import counted
from lighter_async.limits import usable_cores

__all__ = ["run_job"]

_KILLED_SHARE = 8  # one of so many patches

_HOW = (
    "Medians of the loop's seconds, and of the ratios to the loop of the same round that writes nothing. What the "
    "background writer had left to store then took it {left} s. "
    "The first loop runs the model above with torch.set_num_threads(1). The second one sleeps {milliseconds:g} ms a "
    "batch, without the interpreter's lock, as a loop does that waits for an accelerator; its predictions were "
    "computed before. Both are Lightning's."
)


def run_job(options: DemoOptions) -> int:
    """Run all parts, and report on each.

    Returns:
        The exit code: 0 if everything is stored as it should be, 1 if not.

    Raises:
        OSError: The output cannot be written.
        WriteError: Samples were not written.
        KeyboardInterrupt: Ctrl-C. What was handed over is stored, and nothing that was started goes on.
    """
    # No markup, since paths may contain brackets.
    console = Console(markup=False, highlight=False, soft_wrap=True)
    folders = {output.key: options.output / output.key for output in WRITERS}
    killed = options.output / "killed"
    for folder in (*folders.values(), killed):
        prepare_folder(folder)
    photographs = load_photographs()
    patches = Patches(photographs, options.patches)
    model = EdgesAndTextures().eval()
    size, writer = options.batch_size, WriterOptions(options.max_workers, options.queue_size)
    console.print(
        f"{len(patches):,} patches of {PATCH_PIXELS} x {PATCH_PIXELS} pixels from {len(photographs)} photographs, in "
        f"batches of {size}, on {counted(usable_cores(), 'core')}"
    )

    console.print("\n1. Lightning predicts all patches, and two FileWriters write in the background")
    if not run_and_check(
        console, folders, options.output, model=model, patches=patches, batch_size=size, options=writer
    ):
        return 1
    _compare_ways(console, options.output, model, patches, size, writer)
    console.print("\n3. A job that is killed in the middle, and the same command again")
    some = max(1, len(patches) // _KILLED_SHARE)
    if not kill_and_resume(console, killed, patches=some, batch_size=size, writer=writer):
        return 1

    sheet = options.output / "contact-sheet.png"
    draw_sheet(patches, folders["edges"], folders["textures"]).save(sheet)
    console.print("\n4. Where to look")
    places = dict(_places(folders, sheet))
    for where, what in places.items():
        console.print(f"{where:{max(map(len, places))}}  {what}")
    return 0


def _compare_ways(
    console: Console, place: Path, model: EdgesAndTextures, patches: Patches, batch_size: int, options: WriterOptions
) -> None:
    """Run the second part: what writing costs a loop, and what to do about that."""
    loops = make_loops(model, patches, batch_size, cores=usable_cores())
    compared, others = ways(options), Others()
    title = f"\n2. What writing costs a loop: {len(compared)} ways to write take turns, in {ROUNDS} rounds"
    with fresh_folder(place, prefix=".lighter-async-demo-") as folder:
        with step(console, title, ROUNDS * len(loops) * len(compared), undisturbed=True) as tick:
            figures = run_rounds(loops, compared, batch_size, folder, others=others, tick=tick)
    console.print(costs_table(figures))
    used = others.used
    left = " and ".join(f"{one.left_seconds:.1f}" for one in figures)
    how = _HOW.format(left=left, milliseconds=1e3 * STEP_SECONDS)
    if used is not None and not is_much(used):
        how += f" Other programs used {used.others:.2f} of {counted(used.cores, 'core')} meanwhile."
    for text in (how, *verdict(figures, used, cores=usable_cores())):
        console.print(f"\n{text}", soft_wrap=False)


def _places(folders: Mapping[str, Path], sheet: Path) -> Iterator[tuple[str, str]]:
    yield from ((str(folder), f"the {key} of all patches") for key, folder in folders.items())
    yield str(sheet), "some patches beside their two files"
    yield f"lighter-async report {shlex.quote(str(folders['edges']))}", "makes a page for a browser of them"
    yield "lighter-async bench", "measures a loop like yours"
    yield "docs/jobs.md", "whole jobs to begin with"
