"""The figures of a setting's runs: medians and spread."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lighter_async.cli.bench.backends import BACKENDS
from lighter_async.cli.bench.grid import Setting
from lighter_async.cli.bench.runs import Run
from lighter_async.cli.bench.workload import Workload
from lighter_async.types import WriterStats

__all__ = ["Baseline", "Figures", "Inline", "Spread", "baseline_of", "figures_of", "inline_of"]

_USUAL_BATCHES = 2  # that are still pending at the loop's end even if the workers keep up


@dataclass(frozen=True)
class Spread:
    """A figure over all repeats."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1])


@dataclass(frozen=True)
class Baseline:
    """The loop without writing.

    Attributes:
        loop_seconds: Over all rounds.
        noise: How far two runs of it in one round lie apart at most, as a share of the loop's time.
    """

    loop_seconds: Spread
    noise: float


@dataclass(frozen=True)
class Inline:
    """The figures of the loop that writes each batch itself; as those of a setting."""

    slowdown: Spread
    samples_per_second: Spread
    megabytes_per_second: Spread


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of a setting.

    Attributes:
        setting: The setting.
        slowdown: The loop's time with writing as a multiple of its time without, in the same round.
        long_slowdown: The same for a long job. If the loop left more in the queue than is usual for workers that keep
            up, the time until that was stored counts as the loop's, since a long job would have waited for it.
        samples_per_second: Of the whole job, until everything was stored.
        megabytes_per_second: The same in bytes of the files.
        waited_seconds: How long the loop waited for space in the queue.
        peak_bytes: The most host memory that the queue held.
        stats: What the writer counted in the run with the median slow-down.
        left_seconds: How long storing the rest took after that run's loop.
    """

    setting: Setting
    slowdown: Spread
    long_slowdown: Spread
    samples_per_second: Spread
    megabytes_per_second: Spread
    waited_seconds: Spread
    peak_bytes: int
    stats: WriterStats
    left_seconds: float


def baseline_of(runs: Sequence[Run]) -> Baseline:
    """The figures of the runs without writing."""
    by_round = _alone(runs)
    noise = max((max(seconds) - min(seconds)) / statistics.median(seconds) for seconds in by_round.values())
    return Baseline(Spread.of(second for seconds in by_round.values() for second in seconds), noise)


def figures_of(runs: Sequence[Run], workload: Workload, steps: int) -> list[Figures]:
    """The figures of the runs with writing, by setting, threads first."""
    alone = {number: statistics.median(seconds) for number, seconds in _alone(runs).items()}
    by_setting: dict[Setting, list[Run]] = defaultdict(list)
    for run in runs:
        if run.setting is not None:
            by_setting[run.setting].append(run)
    samples = steps * workload.batch_size

    def in_long(run: Run) -> float:
        usual = _USUAL_BATCHES * workload.batch_size
        return (run.total_seconds if run.left > usual else run.loop_seconds) / alone[run.round]

    found = []
    for setting, ours in sorted(by_setting.items(), key=lambda item: (BACKENDS.index(item[0].backend), item[0].size)):
        middle = sorted(ours, key=lambda run: run.loop_seconds)[len(ours) // 2]
        stats = [run.stats for run in ours if run.stats is not None]
        assert middle.stats is not None
        found.append(
            Figures(
                setting=setting,
                slowdown=Spread.of(run.loop_seconds / alone[run.round] for run in ours),
                long_slowdown=Spread.of(map(in_long, ours)),
                samples_per_second=Spread.of(samples / run.total_seconds for run in ours),
                megabytes_per_second=Spread.of(run.stored_bytes / 1e6 / run.total_seconds for run in ours),
                waited_seconds=Spread.of(one.waited_seconds for one in stats),
                peak_bytes=max(one.peak_pending_bytes for one in stats),
                stats=middle.stats,
                left_seconds=middle.total_seconds - middle.loop_seconds,
            )
        )
    return found


def inline_of(runs: Sequence[Run], workload: Workload, steps: int) -> Inline | None:
    """The figures of the runs that wrote inline; None if there are none."""
    ours, alone = [run for run in runs if run.inline], _alone(runs)
    if not ours:
        return None
    return Inline(
        slowdown=Spread.of(run.loop_seconds / statistics.median(alone[run.round]) for run in ours),
        samples_per_second=Spread.of(steps * workload.batch_size / run.total_seconds for run in ours),
        megabytes_per_second=Spread.of(run.stored_bytes / 1e6 / run.total_seconds for run in ours),
    )


def _alone(runs: Sequence[Run]) -> dict[int, list[float]]:
    """The seconds of the loop without writing, by round."""
    found: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        if run.setting is None and not run.inline:
            found[run.round].append(run.loop_seconds)
    return found
