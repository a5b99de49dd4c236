"""The processes of a job that is killed, one for each rank, and what they have said."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Job", "start_together"]

_JOB = Path(__file__).with_name("kill_job.py")
_DEADLINE = 120.0  # seconds for what should take a few
_HELPERS = 2
_SECONDS_TO_SEE = 5.0  # that a helper is dead


class Job:
    """One rank of a job, as a process, and what it has said.

    Args:
        directory: Where it stores.
        samples: Of all ranks.
        backend: The writer's.
        seed: Decides its pace.
        kind: What it stores: of `KINDS`.
        run: The run's id.
        rank: Which one it is.
        ranks: Of how many.

    Attributes:
        handed: Samples whose hand-over has returned.
        stored: Those of them that a `flush` has stored.
        pending: What was to do when it began; None if it was killed before.
        has_ended: Whether it has handed over and stored all of its share, or is dead.
        is_bereft: Whether it had no helper any more when it was killed.
        is_wiped_out: Whether its helpers are to be killed together with it.
        is_followed: Whether all of them but one are.
        errors: What it has printed on stderr, once it has ended.
        status: Its exit status.
    """

    def __init__(
        self,
        directory: Path,
        samples: int,
        backend: str,
        seed: int,
        *,
        kind: str = "files",
        run: str,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        # Descriptors that its helpers do not inherit, or nobody would be told when it ends before they have.
        said, say = os.pipe()
        self._errors = tempfile.TemporaryFile()
        self._said = open(said, "rb", buffering=0)
        try:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, str(_JOB), str(directory), str(samples), backend, str(seed), str(say)),
                    *(kind, run, str(rank), str(ranks)),
                ],
                stdin=subprocess.PIPE,
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
        self.is_bereft = False
        self.is_wiped_out = False
        self.is_followed = False
        self.errors = ""
        self.status = 0
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Job:
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
        self._let_go()
        self._errors.seek(0)
        self.errors = self._errors.read().decode(errors="replace")
        self._errors.close()

    def go(self) -> None:
        """Have it store: it waits for that once it has said what is pending."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b"go\n")
            self.process.stdin.flush()

    def wait_until_it_knows(self) -> None:
        """Wait until it has said what is pending, or has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self.pending is not None or self.has_ended, _DEADLINE)

    def _let_go(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

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


def start_together(jobs: list[Job]) -> None:
    """Have all ranks store, once each of them has seen the same samples as pending."""
    for job in jobs:
        job.wait_until_it_knows()
    for job in jobs:
        job.go()
