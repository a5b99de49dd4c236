"""SIGKILL at random moments, of a job and of its helper processes, with a restart after each."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from jobs import Job, start_together
from kinds import KINDS
from tally import GoOn, Tally, always

from lighter_async import pending, read_manifest
from lighter_async.manifest.verify import verify

__all__ = ["kills"]

_DEADLINE = 120.0  # seconds for what should take a few
_KILLS_PER_CYCLE = 8
_ALL_AT_ONCE = 0.15  # of the job's kills
_FOLLOWED = 0.3  # of those, in which one helper is left
_SEEN = 0.5  # of the helpers' kills, after which the job has time to replace it
_OPENING = 0.1  # of the job's kills, which come while it opens
_MOST_HELPER_KILLS = 2  # of one job, which gives a sample up after three
_APART = 0.2  # seconds at most from the kill of one rank to that of the next


def kills(
    seed: int,
    rounds: int,
    backend: str,
    folder: Path,
    *,
    samples: int = 200,
    kinds: Sequence[str] = ("files",),
    ranks: int = 1,
    go_on: GoOn = always,
) -> Tally:
    """Kill a job and, where it has any, its helpers in turn; look after each; then run it to its end; and so on.

    Args:
        seed: Decides the moments.
        rounds: Kills in all.
        backend: The writer's.
        folder: Where to store; each cycle has a folder of its own there, which it removes.
        samples: Of each cycle's job.
        kinds: What the jobs store, from cycle to cycle.
        ranks: Processes of a job, which share its samples out; a kill of the job kills one after the other.
        go_on: Is told after each kill.
    """
    choose = random.Random(seed)
    title = "SIGKILL of the job" + (" and its helpers" if backend == "process" else "")
    titles = [KINDS[kind].title for kind in kinds if KINDS[kind].title]
    tally = Tally("; ".join([title, *titles]) + (f"; {ranks} ranks" if ranks > 1 else ""), backend)
    cycle = 0
    while tally.faults < rounds and not tally.troubles:
        kind = kinds[cycle % len(kinds)]
        cycle += 1
        directory = folder / f"{backend}-{kinds[0]}-{cycle}"
        before = tally.faults
        goal = min(rounds - tally.faults, _KILLS_PER_CYCLE)
        more = _Cycle(directory, samples, backend, choose, tally, kind, ranks).run(goal, go_on)
        if tally.is_clean:
            shutil.rmtree(directory)
        if not more or (tally.faults == before and cycle > rounds):
            break
    return tally


class _Cycle:
    """One data set's way from nothing to all of it, through several kills."""

    def __init__(
        self,
        directory: Path,
        samples: int,
        backend: str,
        choose: random.Random,
        tally: Tally,
        kind: str,
        ranks: int,
    ) -> None:
        self._directory = directory
        self._samples = samples
        self._backend = backend
        self._choose = choose
        self._tally = tally
        self._kind = kind
        self._stored = KINDS[kind]
        self._ranks = ranks
        self._handed: set[int] = set()  # ever
        self._kept: set[int] = set()  # of those, what has to outlive what was killed since
        self._reported: set[int] = set()  # of those, what a flush has stored, so that it can be read at any moment

    def run(self, goal: int, go_on: GoOn) -> bool:
        """Kill so often, if the job lasts so long; returns whether to go on."""
        more, first = True, self._tally.faults
        while more and self._tally.faults - first < goal:
            left = self._samples - len(self._handed)
            share = max(1, min(2 * left // max(1, goal - (self._tally.faults - first)), 3 * left // 4)) // self._ranks
            with contextlib.ExitStack() as stack:
                jobs = self._start(stack)
                opening = self._choose.random() < _OPENING
                if not opening or self._choose.random() < 0.5:
                    start_together(jobs)
                if self._backend == "process" and not opening:
                    for _ in range(self._choose.randint(0, _MOST_HELPER_KILLS)):
                        if self._tally.faults - first < goal - 1 and self._kill_helper(
                            self._choose.choice(jobs), share // 3
                        ):
                            more = go_on(self._tally) and more
                ended = not self._kill_job(jobs, share, opening)
            self._look(jobs)
            if ended:
                break
            more = go_on(self._tally) and more
        self._finish()
        return more

    def _start(self, stack: contextlib.ExitStack) -> list[Job]:
        run = f"{self._choose.getrandbits(64):016x}"
        return [
            stack.enter_context(
                Job(
                    self._directory,
                    self._samples,
                    self._backend,
                    self._choose.getrandbits(32),
                    kind=self._kind,
                    run=run,
                    rank=rank,
                    ranks=self._ranks,
                )
            )
            for rank in range(self._ranks)
        ]

    def _kill_helper(self, job: Job, share: int) -> bool:
        job.wait_for(self._choose.randint(1, max(1, share)), self._choose.uniform(0, 0.02))
        helpers = job.helpers()
        if not helpers or job.has_ended:
            return False
        victim = self._choose.choice(helpers)
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            return False
        # At times the job is killed before it can see that: then the other helper takes over what this one had.
        if self._choose.random() < _SEEN:
            job.wait_for_another(victim)
        self._tally.faults += 1
        self._tally.rounds += 1
        self._check_files()
        return True

    def _kill_job(self, jobs: list[Job], share: int, opening: bool) -> bool:
        """Kill its ranks, in any order; returns whether one of them was there to be killed."""
        first, *others = self._choose.sample(jobs, len(jobs))
        if opening:
            time.sleep(self._choose.uniform(0, 0.5))
        else:
            first.wait_for(self._choose.randint(1, max(1, share)), self._choose.uniform(0, 0.02))
        was_there = self._kill(first)
        for job in others:
            time.sleep(self._choose.uniform(0, _APART))
            was_there = self._kill(job) or was_there
        return was_there

    def _kill(self, job: Job) -> bool:
        job.is_wiped_out = self._backend == "process" and self._choose.random() < _ALL_AT_ONCE
        job.is_followed = self._choose.random() < _FOLLOWED
        if not job.kill():
            return False
        self._tally.midway += self._stored.is_midway(self._directory)
        self._tally.faults += 1
        self._tally.rounds += 1
        return True

    def _look(self, jobs: list[Job]) -> None:
        """What a job that was killed, or has ended, leaves."""
        for job in jobs:
            if job.status not in (0, -signal.SIGKILL):
                self._tally.troubles.append(f"the job ended with status {job.status}: {job.errors[-2000:]}")
                return
            again = self._kept & set(job.pending or ())
            if again:  # it would compute again what it was told is stored, or will be
                self._lose(again, "pending again for the next run")
        for job in jobs:
            self._handed |= job.handed
            self._reported |= job.stored
            # Helpers store what was handed over whatever becomes of the job, and of all but one of them. Threads end
            # with it, as helpers do that are all killed together with it: then it counts what was stored.
            outlives = self._backend == "process" and not job.is_wiped_out and not job.is_bereft
            self._kept |= job.handed if outlives else job.stored
        self._check_files()
        if self._choose.random() < 0.5:
            return  # the next run waits for the helpers that are still at work
        again = self._kept & set(pending(range(self._samples), self._stored.where(self._directory)))
        if again:
            self._lose(again, "pending after its helpers have ended")
        self._reported |= self._kept
        self._check_files()

    def _lose(self, indices: set[int], what: str) -> None:
        self._tally.lost += len(indices)
        self._tally.troubles.append(f"handed over and {what}: {sorted(indices)[:10]} in {self._directory}")

    def _check_files(self) -> None:
        """All is whole and right and there once, and nothing that is recorded or reported is missing or wrong."""
        found = self._stored.look(self._directory)
        if found.torn:
            self._tally.torn += len(found.torn)
            self._tally.troubles.append(f"torn: {found.torn[:10]} in {self._directory}")
        if twice := len(found.stored) - len(set(found.stored)):
            self._tally.duplicated += twice
            self._tally.troubles.append(f"{twice} samples are there twice in {self._directory}")
        if found.strange:
            self._tally.troubles.append(f"nobody has stored {found.strange[:10]}")
        if not read_manifest(self._directory).runs:
            return  # killed before it began
        report = verify(self._directory, workers=1)
        damaged = report.damaged  # but for tables, which the next run that ends writes
        if damaged:
            self._lose({one.record.index or 0 for one in damaged if one.record}, f"{report.counts()}")
        if gone := self._stored.unreadable(self._directory, self._reported):
            self._lose(set(gone), "not to be read")

    def _finish(self) -> None:
        """Run it to its end, and at times once more: everything is there, once."""
        for _ in range(self._choose.randint(1, 2)):
            if self._tally.troubles:
                return
            with contextlib.ExitStack() as stack:
                jobs = self._start(stack)
                start_together(jobs)
                for job in jobs:
                    job.process.wait(_DEADLINE)
            self._look(jobs)
        everything = set(range(self._samples))
        found = self._stored.look(self._directory)
        self._tally.settle(everything, found.stored, [], found.torn)
        # What was stored before a kill, and not recorded, a file of the run tells as well.
        missing = set(pending(range(self._samples), self._stored.where(self._directory)))
        missing.update(self._stored.unreadable(self._directory, everything))
        if missing:
            self._lose(missing, "pending at the end")
        recorded = [record.index for record in read_manifest(self._directory).records]
        self._tally.duplicated += len(recorded) - len(set(recorded))
        report = verify(self._directory, workers=1)
        if not report.is_sound or report.counts().get("extra"):
            self._tally.troubles.append(f"at the end verify finds {report.counts()} in {self._directory}")
        left = [*found.unsealed, *map(str, self._directory.rglob(".lighter-async-*"))]
        if left:
            self._tally.troubles.append(f"left at the end: {left[:5]}")
        if found.listed not in (None, self._samples):
            self._tally.troubles.append(f"at the end {found.listed} samples are listed in {self._directory}")
