"""Runs and their ranks: when they ran, what they stored, and how fast."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lighter_async.manifest import Manifest, RunRecord
from lighter_async.manifest.block import Block

__all__ = ["RankFacts", "Rate", "RunFacts", "runs_in"]

_BINS = 180  # of a run's time
_SHORTEST = 0.05  # seconds of a bin; records tell times in milliseconds
_MOST_TEXT = 10_000  # characters of a run's config
_MOST_DRAWN = 50  # of the runs, the latest ones, of which a curve is drawn
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Rate:
    """What was recorded in equal spans of time, one after the other.

    Attributes:
        start: When the first span begins, in seconds since the epoch.
        step: Seconds of a span.
        samples: Those whose last output was recorded in each.
        bytes: What was recorded in each.
    """

    start: float
    step: float
    samples: list[int]
    bytes: list[int]


@dataclass(frozen=True, slots=True)
class RankFacts:
    """What one rank of a run has stored.

    Attributes:
        rank: Which.
        samples: How many.
        bytes: Of all of their outputs.
        first: When it first recorded something, in seconds since the epoch.
        last: When it last did.
        middle_gap: The median of the seconds from one time of recording to the next; None if there was only one.
        longest_gap: The longest.
        longest_gap_at: When that began.
    """

    rank: int
    samples: int
    bytes: int
    first: float
    last: float
    middle_gap: float | None
    longest_gap: float | None
    longest_gap_at: float | None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What one run has stored, over all of its ranks.

    Attributes:
        run: Its id.
        sequence: Its place among the directory's runs.
        began: When its first writer was opened, in seconds since the epoch; None if only its samples are known.
        last: When it last recorded something; None if it never did.
        world_size: Of how many ranks it was.
        resume: Whether it went on with what earlier runs had stored.
        counts: Whether what it has stored counts: no later run has begun anew.
        durability: What its files outlive.
        config: What it was made with, as JSON; empty if nothing was said.
        series: The writers and keys of what it stores.
        samples: How many it has stored.
        bytes: Of all of their outputs.
        at_work: Whether a process that stores for it is running, as far as this machine knows.
        ranks: Those that have stored something.
        rate: Over time; None of a run that has stored nothing, and of the earlier ones of very many.
    """

    run: str
    sequence: int
    began: float | None
    last: float | None
    world_size: int
    resume: bool
    counts: bool
    durability: str
    config: str
    series: list[tuple[str, str]]
    samples: int
    bytes: int
    at_work: bool
    ranks: list[RankFacts]
    rate: Rate | None


def runs_in(manifest: Manifest, *, key: str | None, at_work: Sequence[str]) -> list[RunFacts]:
    """The runs of a directory, in the order in which they began.

    A sample that a later run has stored again is that run's alone.

    Args:
        manifest: What is recorded.
        key: Only runs that store what has this key; None takes all.
        at_work: The ids of the runs that are going on.
    """
    told: dict[str, list[RunRecord]] = {}
    for one in manifest.runs:
        if key in (None, one.key):
            told.setdefault(one.run, []).append(one)
    stored: dict[str, list[Block]] = {}
    for block in manifest.records.blocks:
        stored.setdefault(block.head.run, []).append(block)
    ids = list(dict.fromkeys([*stored.keys() - told.keys(), *told]))
    current = manifest.current_runs()
    found = []
    for number, id_ in enumerate(ids):
        records, blocks = told.get(id_, []), stored.get(id_, [])
        series = sorted({one.series for one in records} | {block.series for block in blocks})
        began = min((one.time for one in records), default=None)
        stretches = _Stretch.of(blocks)
        configs = [one.config for one in records if one.config is not None]
        ranks = sorted({block.head.rank for block in blocks})
        found.append(
            RunFacts(
                id_,
                max((one.sequence for one in records), default=0),
                began,
                float(stretches.times.max()) if len(stretches.times) else None,
                max((one.world_size for one in records), default=1),
                any(one.resume for one in records),
                any(one not in current or id_ in current[one] for one in series),
                records[0].durability if records else "",
                json.dumps(configs[0])[:_MOST_TEXT] if configs else "",
                series,
                stretches.samples(),
                stretches.nbytes(),
                id_ in at_work,
                [_rank(rank, [block for block in blocks if block.head.rank == rank]) for rank in ranks],
                stretches.rate(began) if number >= len(ids) - _MOST_DRAWN else None,
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Outputs of samples that count: for each which sample it is of, when it was recorded, and its size."""

    keys: NDArray[np.uint64]
    times: NDArray[np.float64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> _Stretch:
        keys, times, sizes = [np.empty(0, np.uint64)], [np.empty(0, np.float64)], [np.empty(0, np.int64)]
        for block in blocks:
            rows = block.rows()
            # Samples of two loaders may have one name, as the rows of two arrays have.
            keys.append(block.name_keys()[rows] ^ (np.array([block.head.loader], np.uint64) * _ODD))
            times.append(block.column(block.times)[rows])
            sizes.append(block.size_column()[rows] if block.is_known else np.zeros(len(rows), np.int64))
        return cls(np.concatenate(keys), np.concatenate(times), np.concatenate(sizes))

    def samples(self) -> int:
        return len(np.unique(self.keys))

    def nbytes(self) -> int:
        return int(self.sizes.sum())

    def rate(self, began: float | None) -> Rate | None:
        if not len(self.times):
            return None
        first, last = float(self.times.min()), float(self.times.max())
        start = first if began is None else min(began, first)
        count = max(1, min(_BINS, math.ceil((last - start) / _SHORTEST)))
        step = max((last - start) / count, _SHORTEST)
        places = np.clip(((self.times - start) / step).astype(np.int64), 0, count - 1)
        nbytes = np.zeros(count, np.int64)
        np.add.at(nbytes, places, self.sizes)
        order = np.argsort(self.times, kind="stable")[::-1]
        _, last_outputs = np.unique(self.keys[order], return_index=True)
        samples = np.bincount(places[order][last_outputs], minlength=count)
        return Rate(start, step, samples.tolist(), nbytes.tolist())


def _rank(rank: int, blocks: Sequence[Block]) -> RankFacts:
    stretch = _Stretch.of(blocks)
    times = np.unique(stretch.times)
    gaps = np.diff(times)
    longest = int(gaps.argmax()) if len(gaps) else 0
    return RankFacts(
        rank,
        stretch.samples(),
        stretch.nbytes(),
        float(times[0]),
        float(times[-1]),
        float(np.median(gaps)) if len(gaps) else None,
        float(gaps[longest]) if len(gaps) else None,
        float(times[longest]) if len(gaps) else None,
    )
