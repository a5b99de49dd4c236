"""SIGKILL at random moments, of a job and of its helper processes, with a restart after each."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from samples import look, torn_of
from tally import GoOn, Tally, always

from lighter_async import pending, read_manifest
from lighter_async.manifest.verify import verify

__all__ = ["kills"]

_JOB = Path(__file__).with_name("kill_job.py")
_DEADLINE = 120.0  # seconds for what should take a few
_KILLS_PER_CYCLE = 8
_ALL_AT_ONCE = 0.15  # of the job's kills
_FOLLOWED = 0.3  # of those, in which one helper is left
_SEEN = 0.5  # of the helpers' kills, after which the job has time to replace it
_HELPERS = 2
_SECONDS_TO_SEE = 5.0  # that a helper is dead
_MOST_HELPER_KILLS = 2  # of one job, which gives a sample up after three


def kills(seed: int, rounds: int, backend: str, folder: Path, *, samples: int = 200, go_on: GoOn = always) -> Tally:
    """Kill a job and, where it has any, its helpers in turn; look after each; then run it to its end; and so on.

    Args:
        seed: Decides the moments.
        rounds: Kills in all.
        backend: The writer's.
        folder: Where to store; each cycle has a folder of its own there, which it removes.
        samples: Of each cycle's job.
        go_on: Is told after each kill.
    """
    choose = random.Random(seed)
    tally = Tally("SIGKILL of the job" + (" and its helpers" if backend == "process" else ""), backend)
    cycle = 0
    while tally.faults < rounds and not tally.troubles:
        cycle += 1
        directory = folder / f"{backend}-{cycle}"
        before = tally.faults
        goal = min(rounds - tally.faults, _KILLS_PER_CYCLE)
        more = _Cycle(directory, samples, backend, choose, tally).run(goal, go_on)
        if tally.is_clean:
            shutil.rmtree(directory)
        if not more or (tally.faults == before and cycle > rounds):
            break
    return tally


class _Cycle:
    """One data set's way from nothing to all of it, through several kills."""

    def __init__(self, directory: Path, samples: int, backend: str, choose: random.Random, tally: Tally) -> None:
        self._directory = directory
        self._samples = samples
        self._backend = backend
        self._choose = choose
        self._tally = tally
        self._handed: set[int] = set()  # ever
        self._kept: set[int] = set()  # of those, what has to outlive what was killed since

    def run(self, goal: int, go_on: GoOn) -> bool:
        """Kill so often, if the job lasts so long; returns whether to go on."""
        more, first = True, self._tally.faults
        while more and self._tally.faults - first < goal:
            left = self._samples - len(self._handed)
            with _Job(self._directory, self._samples, self._backend, self._choose.getrandbits(32)) as job:
                share = max(1, min(2 * left // max(1, goal - (self._tally.faults - first)), 3 * left // 4))
                helpers = 0
                if self._backend == "process":
                    for _ in range(self._choose.randint(0, _MOST_HELPER_KILLS)):
                        if self._tally.faults - first < goal - 1 and self._kill_helper(job, share // 3):
                            helpers += 1
                            more = go_on(self._tally) and more
                ended = not self._kill_job(job, share)
            self._look(job)
            if ended:
                break
            more = go_on(self._tally) and more
        self._finish()
        return more

    def _kill_helper(self, job: _Job, share: int) -> bool:
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

    def _kill_job(self, job: _Job, share: int) -> bool:
        """Returns whether it was there to be killed."""
        if self._choose.random() < 0.1:
            job.wait_for(0, self._choose.uniform(0, 0.5))  # while it opens
        else:
            job.wait_for(self._choose.randint(1, max(1, share)), self._choose.uniform(0, 0.02))
        job.is_wiped_out = self._backend == "process" and self._choose.random() < _ALL_AT_ONCE
        job.is_followed = self._choose.random() < _FOLLOWED
        if not job.kill():
            return False
        self._tally.midway += any(self._directory.rglob(".lighter-async-*.part"))
        self._tally.faults += 1
        self._tally.rounds += 1
        return True

    def _look(self, job: _Job) -> None:
        """What a job that was killed, or has ended, leaves."""
        if job.status not in (0, -signal.SIGKILL):
            self._tally.troubles.append(f"the job ended with status {job.status}: {job.errors[-2000:]}")
            return
        again = self._kept & set(job.pending or ())
        if again:  # it would compute again what it was told is stored, or will be
            self._lose(again, "pending again for the next run")
        self._handed |= job.handed
        # Helpers store what was handed over whatever becomes of the job, and of all but one of them. Threads end with
        # it, as helpers do that are all killed together with it: then it counts what was stored.
        outlives = self._backend == "process" and not job.is_wiped_out and not job.is_bereft
        self._kept |= job.handed if outlives else job.stored
        self._check_files()
        if self._choose.random() < 0.5:
            return  # the next run waits for the helpers that are still at work
        again = self._kept & set(pending(range(self._samples), self._directory))
        if again:
            self._lose(again, "pending after its helpers have ended")
        self._check_files()

    def _lose(self, indices: set[int], what: str) -> None:
        self._tally.lost += len(indices)
        self._tally.troubles.append(f"handed over and {what}: {sorted(indices)[:10]} in {self._directory}")

    def _check_files(self) -> None:
        """Every file is whole and right, and nothing that is recorded is missing or wrong."""
        files, strange = look(self._directory)
        if torn := torn_of(files):
            self._tally.torn += len(torn)
            self._tally.troubles.append(f"torn: {torn[:10]} in {self._directory}")
        if strange:
            self._tally.troubles.append(f"nobody has stored {strange[:10]}")
        if not read_manifest(self._directory).runs:
            return  # killed before it began
        report = verify(self._directory, workers=1)
        if report.damaged:
            self._lose({one.record.index or 0 for one in report.damaged if one.record}, f"{report.counts()}")

    def _finish(self) -> None:
        """Run it to its end: everything is there, once."""
        if self._tally.troubles:
            return
        with _Job(self._directory, self._samples, self._backend, self._choose.getrandbits(32)) as job:
            job.process.wait(_DEADLINE)
        self._look(job)
        self._handed |= job.handed
        everything = set(range(self._samples))
        files, _ = look(self._directory)
        self._tally.settle(everything, [index for _, index in files], [], torn_of(files))
        manifest = read_manifest(self._directory)
        # What was stored before a kill, and not recorded, a file of the run tells as well.
        missing = set(pending(range(self._samples), self._directory))
        if missing:
            self._lose(missing, "pending at the end")
        recorded = [record.index for record in manifest.records]
        self._tally.duplicated += len(recorded) - len(set(recorded))
        report = verify(self._directory, workers=1)
        if not report.is_sound or report.counts().get("extra"):
            self._tally.troubles.append(f"at the end verify finds {report.counts()} in {self._directory}")
        if temporary := list(self._directory.rglob(".lighter-async-*")):
            self._tally.troubles.append(f"temporary files are left: {temporary[:5]}")


class _Job:
    """The job, as a process, and what it has said."""

    def __init__(self, directory: Path, samples: int, backend: str, seed: int) -> None:
        # Descriptors that its helpers do not inherit, or nobody would be told when it ends before they have.
        said, say = os.pipe()
        self._errors = tempfile.TemporaryFile()
        self._said = open(said, "rb", buffering=0)
        try:
            self.process = subprocess.Popen(
                [sys.executable, str(_JOB), str(directory), str(samples), backend, str(seed), str(say)],
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[say],
            )
        finally:
            os.close(say)
        self.handed: set[int] = set()
        self.stored: set[int] = set()
        self.pending: list[int] | None = None
        self.has_ended = False
        self.is_bereft = False  # whether it had no helper any more when it was killed
        self.is_wiped_out = False  # whether its helpers are to be killed together with it
        self.is_followed = False  # whether all of them but one are
        self.errors = ""
        self.status = 0
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> _Job:
        self._reader.start()
        return self

    def __exit__(self, kind: object, *_: Any) -> None:
        """Wait for it, and not for its helpers."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0 if kind else _DEADLINE)
        self.process.kill()
        self.status = self.process.wait(_DEADLINE)
        self._reader.join(_DEADLINE)
        self._said.close()
        self._errors.seek(0)
        self.errors = self._errors.read().decode(errors="replace")
        self._errors.close()

    def kill(self) -> bool:
        """Kill it, alone or with its helpers; returns whether it was there."""
        was_there = self.process.poll() is None and not self.has_ended
        helpers = []
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(self.process.pid).suspend()  # or it would start others
            helpers = self.helpers()
        self.is_bereft = not helpers
        spared = 0 if self.is_wiped_out else 1 if self.is_followed else len(helpers)
        for helper in helpers[spared:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                helper.kill()
        self.process.kill()
        return self.process.wait(_DEADLINE) == -signal.SIGKILL and was_there

    def helpers(self) -> list[psutil.Process]:
        """Its helper processes."""
        try:
            children = psutil.Process(self.process.pid).children()
            return [one for one in children if "lighter_async" in " ".join(one.cmdline())]
        except psutil.NoSuchProcess:
            return []

    def wait_for_another(self, helper: psutil.Process) -> bool:
        """Wait until there is one in the place of a helper that was killed, or the job has ended; else it is False."""
        deadline = time.monotonic() + _SECONDS_TO_SEE
        while time.monotonic() < deadline and not self.has_ended:
            if len([one for one in self.helpers() if one != helper]) >= _HELPERS:
                return True
            time.sleep(0.005)
        return False

    def wait_for(self, samples: int, seconds: float) -> None:
        """Wait until so many more samples were handed over, or it has ended, and then so long."""
        with self._changed:
            goal = len(self.handed) + samples
            self._changed.wait_for(lambda: len(self.handed) >= goal or self.has_ended, _DEADLINE)
        time.sleep(seconds)

    def _read(self) -> None:
        for line in self._said:
            word, *rest = line.decode().split()
            indices = list(map(int, rest))
            with self._changed:
                if word == "pending":
                    self.pending = indices
                elif word == "handed":
                    self.handed.update(indices)
                elif word == "stored":
                    self.stored |= self.handed
                elif word == "end":
                    self.stored |= self.handed
                    self.has_ended = True
                self._changed.notify_all()
        with self._changed:
            self.has_ended = True
            self._changed.notify_all()
