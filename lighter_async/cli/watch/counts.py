"""What a run has stored so far, counted from what its ranks record."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lighter_async.locks import held_by
from lighter_async.manifest import Record, RunRecord
from lighter_async.manifest.entry import Loaders, samples_of
from lighter_async.manifest.following import Following
from lighter_async.manifest.line import Samples, Span
from lighter_async.manifest.reader import current_runs
from lighter_async.names import RESERVED_PREFIX
from lighter_async.store import source_of
from lighter_async.workers import kept_in

__all__ = ["RankCounts", "RunCounts", "Watched"]

_WINDOW = 10.0  # seconds that a rate is taken over
_NAMES: Final = 5  # the last ones are shown


@dataclass(slots=True)
class RankCounts:
    """What a rank has recorded: samples, their bytes, and when it last did so, in seconds since the epoch."""

    samples: int = 0
    bytes: int = 0
    last: float = 0.0


@dataclass(slots=True)
class RunCounts:
    """What is known of a run.

    Attributes:
        sequence: Its place among the directory's runs.
        began: When it began, in seconds since the epoch; 0 if that is not known.
        resume: Whether it goes on with what earlier ones have stored.
        lengths: How many samples the data sets of each of its series have together; None where that is not known.
        ranks: What each rank has recorded, by the manifest that says so and the rank.
        names: Of the samples that were recorded last, and when they were.
    """

    sequence: int = 0
    began: float = 0.0
    resume: bool = False
    lengths: dict[tuple[str, str], int | None] = field(default_factory=dict)
    ranks: dict[tuple[str, int], RankCounts] = field(default_factory=dict)
    names: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=_NAMES))


class Watched:
    """A directory that is looked at again and again.

    Args:
        where: What the writer was given.
        clock: Seconds, from any moment on.

    Attributes:
        where: As given.
        runs: The runs, by their ids.
        at_work: The ids of those that are going on, as far as this machine knows.
        failures: The values in quarantine: the run of each, and its error, by its folder's name.
    """

    def __init__(self, where: Path, *, clock: Callable[[], float]) -> None:
        self.where = where
        self.runs: dict[str, RunCounts] = {}
        self.at_work: frozenset[str] = frozenset()
        self.failures: dict[str, tuple[str, str]] = {}
        self._directory, _, self._key = source_of(where)
        self._following = Following(self._directory)
        self._clock = clock
        self._seen: set[str] = set()
        self._begun: dict[tuple[str, tuple[str, str], int], RunRecord] = {}
        self._past: deque[tuple[float, int, int]] = deque()

    def look(self) -> bool:
        """Take in what has been recorded since the last look; returns whether a run goes on, or is waited for.

        Raises:
            LighterAsyncError: A later version of this package has written the records.
            OSError: They cannot be read.
        """
        while True:
            # Asked first: a run that has ended by now has recorded all that is read below. Of one that begins meanwhile
            # something may be read although it was not at work before, so then it is asked again.
            self.at_work = frozenset(held_by(os.path.join(self._directory, RESERVED_PREFIX))) - {""}
            self._seen |= self.at_work
            if not self._take_in() or self.at_work:
                break
        for kept in kept_in(self._directory, known=self.failures):
            if self._key in (None, kept.about["key"]):
                self.failures[kept.folder.name] = kept.about["run"], kept.about["error"]
        total = self.total()
        self._past.append((self._clock(), total.samples, total.bytes))
        while len(self._past) > 2 and self._past[1][0] <= self._past[-1][0] - _WINDOW:
            self._past.popleft()
        return bool(self.at_work) or not self.runs

    @property
    def shown(self) -> list[str]:
        """The ids of the runs that are shown: those that were at work since the first look; else the latest."""
        known = sorted(self.runs, key=lambda id_: (self.runs[id_].sequence, self.runs[id_].began))
        return [id_ for id_ in known if id_ in self._seen] or known[-1:]

    @property
    def is_known(self) -> bool:
        """Whether a run has begun here."""
        return bool(self.runs)

    def ranks(self) -> list[tuple[int, int, RankCounts]]:
        """What each rank of the runs that are shown has recorded: the run's sequence number, the rank, and that."""
        return sorted(
            ((self.runs[id_].sequence, rank, counts) for id_ in self.shown for (_, rank), counts in self._of(id_)),
            key=lambda one: one[:2],
        )

    def total(self) -> RankCounts:
        """What the runs that are shown have recorded."""
        return _sum(counts for _, _, counts in self.ranks())

    def total_with_earlier(self) -> RankCounts:
        """The same, with the runs that those which are shown go on with."""
        shown = {*self.shown}
        begun = sorted(self._begun.values(), key=lambda one: (one.sequence, one.time))
        together = shown.union(*(runs for runs in current_runs(begun).values() if not shown.isdisjoint(runs)))
        return _sum(counts for id_ in together if id_ in self.runs for _, counts in self._of(id_))

    def names(self) -> list[str]:
        """Of the samples that the runs that are shown have recorded last, the latest at the end."""
        some = sorted((one for id_ in self.shown for one in self.runs[id_].names), key=lambda one: one[0])
        return [name for _, name in some[-_NAMES:]]

    def expected(self) -> int | None:
        """How many samples there will be; None where that is not known, as of a run that goes on with earlier ones."""
        runs = [self.runs[id_] for id_ in self.shown]
        lengths = [length for run in runs for length in (run.lengths or {("", ""): None}).values()]
        known = [one for one in lengths if one is not None]
        return sum(known) if runs and len(known) == len(lengths) and not any(run.resume for run in runs) else None

    def rates(self) -> tuple[float, float]:
        """Samples and bytes a second, over the last ten seconds, or as long as has been looked."""
        if not self._past or (seconds := self._past[-1][0] - self._past[0][0]) <= 0:
            return 0.0, 0.0
        (_, samples, nbytes), (_, samples_now, nbytes_now) = self._past[0], self._past[-1]
        return max(0, samples_now - samples) / seconds, max(0, nbytes_now - nbytes) / seconds

    def errors(self) -> list[str]:
        """The errors of the values in quarantine that are of the runs that are shown."""
        shown = {*self.shown}
        return [error for run, error in self.failures.values() if run in shown]

    def _take_in(self) -> bool:
        """Count what has been recorded; returns whether there was anything."""
        gained = False
        for source, entry in self._following.read():
            gained = True
            if entry is None:
                self._forget(source)
            elif isinstance(entry, Record):
                self._count(source, samples_of([entry]))
            elif isinstance(entry, Samples):
                self._count(source, entry)
            elif isinstance(entry, RunRecord):
                self._begin(entry)
            elif isinstance(entry, Loaders) and self._key in (None, entry.key):
                lengths = [one.length for one in entry.loaders]
                known = [one for one in lengths if one is not None]
                self._run(entry.run).lengths[entry.series] = sum(known) if len(known) == len(lengths) else None
        return gained

    def _run(self, id_: str) -> RunCounts:
        return self.runs.setdefault(id_, RunCounts())

    def _of(self, id_: str) -> Iterator[tuple[tuple[str, int], RankCounts]]:
        yield from self.runs[id_].ranks.items()

    def _begin(self, entry: RunRecord) -> None:
        if self._key in (None, entry.key):
            run = self._run(entry.run)
            self._begun[entry.run, entry.series, entry.rank] = entry
            run.sequence, run.resume = entry.sequence, run.resume or entry.resume
            run.began = min(run.began or entry.time, entry.time)

    def _forget(self, source: str) -> None:
        for run in self.runs.values():
            run.ranks = {about: counts for about, counts in run.ranks.items() if about[0] != source}

    def _count(self, source: str, line: Samples) -> None:
        outputs = [one for one in line.outputs if self._key in (None, one.key)]
        if not outputs:
            return
        run = self._run(line.run)
        counts = run.ranks.setdefault((source, line.rank), RankCounts())
        counts.samples += line.samples
        for one in outputs:
            sizes = one.bytes
            counts.bytes += sum(sizes) if isinstance(sizes, list) else (sizes or 0) * line.samples
        counts.last = max(counts.last, line.time)
        if isinstance(line.names, Span):
            start, step = line.names.start, line.names.step
            names = [str(start + step * place) for place in range(max(0, line.samples - _NAMES), line.samples)]
        else:
            names = line.names[-_NAMES:]
        run.names.extend((line.time, name) for name in names)


def _sum(some: Iterable[RankCounts]) -> RankCounts:
    counts = list(some)
    return RankCounts(
        sum(one.samples for one in counts),
        sum(one.bytes for one in counts),
        max((one.last for one in counts), default=0),
    )
