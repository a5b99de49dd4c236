"""Run loops with each way of writing, in rounds, and compare what they took."""

from __future__ import annotations

import random
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lighter_async.callback import FileWriter
from lighter_async.cli.demo.loops import Loop
from lighter_async.cli.demo.others import Others
from lighter_async.cli.demo.runs import Clock, batches_of, make_folders, run_lightning
from lighter_async.cli.demo.ways import BACKGROUND, NOTHING, Way
from lighter_async.types import WriterStats

__all__ = ["ROUNDS", "Compared", "Taken", "compare", "run_rounds"]

ROUNDS = 3

_START_SECONDS = 0.4  # of the workers, which a long job does not notice


@dataclass(frozen=True)
class Taken:
    """What a run took.

    Attributes:
        clock: Its seconds.
        stats: What the background writer counted; None without one.
    """

    clock: Clock
    stats: WriterStats | None = None


@dataclass(frozen=True)
class Compared:
    """The figures of a loop.

    Attributes:
        loop: The loop.
        seconds: Of the loop, by the way of writing: the median of all rounds.
        ratios: The same as a multiple of the time that the loop of the same round took without writing: the median.
        stats: What the background writer counted in the run of the median ratio.
        left_seconds: How long that run's writer took for what was left after the loop.
    """

    loop: Loop
    seconds: Mapping[str, float]
    ratios: Mapping[str, float]
    stats: WriterStats
    left_seconds: float


def run_rounds(
    loops: Sequence[Loop],
    ways: Mapping[str, Way | None],
    batch_size: int,
    folder: Path,
    *,
    others: Others,
    tick: Callable[[], None],
) -> list[Compared]:
    """Run every loop with every way in every round, in an order that changes from round to round.

    Args:
        loops: The loops.
        ways: The ways to write.
        batch_size: Patches in a batch.
        folder: Where each run makes its folder, which is removed afterwards.
        others: Looks at what other programs use.
        tick: Called after each run.

    Raises:
        WriteError: Samples were not written.
        KeyboardInterrupt: Ctrl-C.
    """
    order = random.Random(20)
    found: list[list[dict[str, Taken]]] = [[] for _ in loops]
    others.begin()
    for _ in range(ROUNDS):
        for loop, rounds in zip(loops, found, strict=True):
            taken = {}
            for title in order.sample(list(ways), len(ways)):
                taken[title] = _run(loop, ways[title], batch_size, folder / "run")
                tick()
            rounds.append({title: taken[title] for title in ways})
        others.note_round()
    return [compare(loop, rounds) for loop, rounds in zip(loops, found, strict=True)]


def compare(loop: Loop, rounds: Sequence[Mapping[str, Taken]]) -> Compared:
    """The figures of a loop's rounds, each by the title of the way."""

    def ratio(taken: Mapping[str, Taken], title: str) -> float:
        return taken[title].clock.loop / taken[NOTHING].clock.loop

    middle = sorted(rounds, key=lambda taken: ratio(taken, BACKGROUND))[len(rounds) // 2][BACKGROUND]
    assert middle.stats is not None
    return Compared(
        loop,
        {title: statistics.median(taken[title].clock.loop for taken in rounds) for title in rounds[0]},
        {title: statistics.median(ratio(taken, title) for taken in rounds) for title in rounds[0]},
        middle.stats,
        middle.clock.total - middle.clock.loop,
    )


def _run(loop: Loop, way: Way | None, batch_size: int, folder: Path) -> Taken:
    batches = batches_of(loop.patches, batch_size)
    with loop.threads():
        if way is None:
            return Taken(run_lightning(loop.model, batches))
        writer = way(folder)
        if isinstance(writer, FileWriter):
            clock = run_lightning(loop.model, batches, [writer], pause=_START_SECONDS)
            taken = Taken(clock, writer.stats())
        else:
            make_folders(folder, loop.patches.names())
            taken = Taken(run_lightning(loop.model, batches, [writer]))
    shutil.rmtree(folder)
    return taken
