"""What the comparison says, in sentences that are the same each time it is run on one machine.

They tell what takes clearly longer, and leave the figures to the table.
"""

from __future__ import annotations

from collections.abc import Sequence

from lighter_async.advice import judge
from lighter_async.cli.demo.others import is_much
from lighter_async.cli.demo.rounds import Compared
from lighter_async.cli.demo.ways import BACKGROUND, BY_HAND, INLINE, NOTHING
from lighter_async.other_programs import CoresInUse

__all__ = ["verdict"]

# Each lies well away from the usual figures, so that a person who runs this twice is told the same twice.
_NEARLY = 1.25  # times as long as without writing; `judge` has a reason for what is slower
_LONGER = 1.06  # times as long as the next faster way
_LEAST_SECONDS = 0.25  # of a loop without writing; in less, a moment's delay is more than the margin

_CONCLUSION = "So write in the background where a core is idle."
_BUSY = "A loop that keeps all cores busy gains little, since whoever writes needs a core, too."


def verdict(figures: Sequence[Compared], used: CoresInUse | None, *, cores: int) -> list[str]:
    """What the figures say, or why they say nothing.

    Args:
        figures: Of each loop.
        used: What other programs used of the cores; None if that is not known.
        cores: Cores that the process may use.
    """
    if used is not None and is_much(used):
        return [f"do not trust this run: other programs used {used.others:.1f} of {used.cores} cores"]
    if any(one.seconds[NOTHING] < _LEAST_SECONDS for one in figures):
        return ["These runs are too short to tell which way is faster: take more patches."]
    told = [_of_loop(one, cores) for one in figures]
    if all(one.ratios[BACKGROUND] <= _NEARLY for one in figures):
        return [*told, f"{_CONCLUSION} {_BUSY}"]
    return [*told, _BUSY]


def _of_loop(figures: Compared, cores: int) -> str:
    slowdown = figures.ratios[BACKGROUND]
    if slowdown > _NEARLY:
        why = judge({"the samples": figures.stats}, cores=cores, left_seconds=figures.left_seconds, slowdown=slowdown)
        return f"{figures.loop.sentence} takes {slowdown:.1f} times as long with background writing. {why.sentence}"
    same, by_hand = figures.ratios[INLINE], figures.ratios[BY_HAND]
    if same > _LONGER * slowdown:
        longest = ", and longest with Image.save and torch.save" if by_hand > _LONGER * same else ""
        inline = f"With inline writing it takes longer{longest}."
    elif by_hand > _LONGER * slowdown:
        inline = "With inline writing it takes longer only if that is Image.save and torch.save."
    else:
        inline = "So it is by inline writing."
    return f"{figures.loop.sentence} is hardly slowed down by background writing. {inline}"
