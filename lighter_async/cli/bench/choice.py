"""Which setting to recommend, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lighter_async.cli.bench.figures import Figures
from lighter_async.cli.bench.grid import Setting

__all__ = ["Choice", "RULE", "choose"]

RULE = (
    "the smallest setting (fewest workers, then smallest queue, then threads) among those whose throughput is within "
    "noise of the highest, among those whose slow-down in a long job is within noise of the lowest"
)
"""The rule by which a setting is chosen."""

_LEAST_NOISE = 0.02
_MOST_NOISE = 0.25  # of the baseline; with more, the figures mean little


@dataclass(frozen=True)
class Choice:
    """A recommendation.

    Attributes:
        setting: The setting to choose.
        line: The same as code.
        reason: The reason, in a sentence.
    """

    setting: Setting
    line: str
    reason: str


def choose(figures: Sequence[Figures], *, noise: float) -> Choice:
    """Choose a setting by `RULE`.

    A setting is within noise of the best one if its median is no worse than the best one's worst repeat, or than the
    best one's median and `noise`, at least two percent.

    Args:
        figures: The figures of each setting.
        noise: The share by which the loop without writing varied on its own.
    """
    share = min(max(noise, _LEAST_NOISE), _MOST_NOISE)
    best = min(figures, key=lambda one: one.long_slowdown.median)
    bound = max(best.long_slowdown.most, best.long_slowdown.median * (1 + share))
    calm = [one for one in figures if one.long_slowdown.median <= bound]
    fastest = max(calm, key=lambda one: one.samples_per_second.median)
    floor = min(fastest.samples_per_second.least, fastest.samples_per_second.median * (1 - share))
    chosen = min(
        (one for one in calm if one.samples_per_second.median >= floor),
        key=lambda one: one.setting.size,
    )
    return Choice(
        chosen.setting, f"FileWriter(..., {chosen.setting})", _reason(chosen, best, fastest, share, len(figures))
    )


def _reason(chosen: Figures, best: Figures, fastest: Figures, share: float, count: int) -> str:
    slowed = f"the loop took {chosen.long_slowdown.median:.2f} times as long as without writing"
    stored = f"{chosen.samples_per_second.median:,.0f} samples/s were stored"
    if count == 1:
        return f"It is the only setting that was run: {slowed}, and {stored}."
    rival = "" if best is chosen else f" (the lowest: {best.long_slowdown.median:.2f})"
    quick = "" if fastest is chosen else f" (the most: {fastest.samples_per_second.median:,.0f})"
    return (
        f"Of {count} settings it is the smallest within noise ({share:.0%}, or the best one's spread) of the lowest "
        f"slow-down and then of the highest throughput: {slowed}{rival}, and {stored}{quick}."
    )
