"""What every target must do in several processes, some of which are killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lighter_async.pickle_by_value import dumps
from lighter_async.targets import Target, lane_of
from lighter_async.testing import storing
from lighter_async.testing.base import MakeTarget, TargetSuite, check_stored, opened, put_all, put_one
from lighter_async.testing.storing import Plan, content_of

__all__ = ["Processes", "ProcessesSuite"]

_DEADLINE = 60.0  # seconds, for a process that should have ended
_NAMES = [f"{number % 3}/{number}" for number in range(12)]

posix = pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")


class Processes:
    """Starts processes that store with a copy of a target.

    Args:
        folder: Where their jobs lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, target: Target, plan: Plan) -> subprocess.Popen[bytes]:
        """Start one, which tells on its output what it has stored."""
        job = self._folder / f"job-{len(self._started)}"
        job.write_bytes(dumps((target, asdict(plan))))
        process = subprocess.Popen(
            [sys.executable, storing.__file__, os.fspath(job), json.dumps(sys.path)], stdout=subprocess.PIPE
        )
        self._started.append(process)
        return process

    def run(self, target: Target, plan: Plan) -> tuple[int, dict[str, Any]]:
        """Run one to its end; returns its exit status, and what it has told of each sample."""
        process = self.start(target, plan)
        told, _ = process.communicate(timeout=_DEADLINE)
        return process.returncode, outcomes_of(told)

    def close(self) -> None:
        """End those that still run."""
        for process in self._started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def outcomes_of(told: bytes) -> dict[str, Any]:
    """What a process has told of each sample."""
    return dict(pair for line in told.splitlines() for pair in json.loads(line))


class ProcessesSuite(TargetSuite):
    """Of copies of a target in other processes, which is what helper processes have."""

    @pytest.fixture
    def processes(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
        """Starts processes, and ends them with the test."""
        if not self.across_processes:
            pytest.skip("a copy of it in another process stores somewhere else (across_processes = False)")
        processes = Processes(tmp_path_factory.mktemp("jobs"))
        with contextlib.closing(processes):
            yield processes

    @pytest.mark.parametrize("is_open", [False, True], ids=["a copy of a closed one", "a copy of an open one"])
    def test_a_copy_stores_in_another_process(
        self, make_target: MakeTarget, processes: Processes, is_open: bool
    ) -> None:
        """While this one is open, which goes on when the copy is closed."""
        target = make_target()
        with contextlib.ExitStack() as stack:
            if is_open:
                stack.enter_context(opened(target))
                put_one(lane_of(target, 0), "before")
            status, told = processes.run(target, Plan(_NAMES, lane=1))
            assert (status, told) == (0, dict.fromkeys(_NAMES, True))
            if is_open:
                put_one(lane_of(target, 0), "after")
        mine = ["before", "after"] if is_open else []
        check_stored(self.read(make_target()), {name: content_of(name) for name in [*_NAMES, *mine]})

    @posix
    @pytest.mark.parametrize(
        ("step", "number"),
        [
            *(("put", number) for number in (0, 1, 4, 5, 11)),
            *(("settle", number) for number in (0, 1, 4)),
            *(("write", number) for number in (0, 6000)),
        ],
    )
    def test_what_is_told_as_stored_outlives_the_process(
        self, make_target: MakeTarget, processes: Processes, step: str, number: int
    ) -> None:
        """It is killed in the middle of a step: what it told of is whole, no other is half, and the rest can follow."""
        status, told = processes.run(make_target(), Plan(_NAMES, dies_at=step, number=number))
        if step == "put":
            assert status == -signal.SIGKILL, "put takes all parts before it returns"
        self._check_after_death(make_target, told)

    @posix
    @pytest.mark.parametrize("lines", [1, 2, 3])
    def test_what_is_told_as_stored_outlives_a_process_that_is_killed_from_outside(
        self, make_target: MakeTarget, processes: Processes, lines: int
    ) -> None:
        """At whatever moment after some samples."""
        names = [f"{number % 3}/{number}" for number in range(300)]
        process = processes.start(make_target(), Plan(names))
        assert process.stdout is not None
        told = b"".join(process.stdout.readline() for _ in range(lines))
        process.kill()
        told += process.stdout.read()
        process.wait()
        self._check_after_death(make_target, outcomes_of(told), names)

    @posix
    @pytest.mark.parametrize(("step", "number"), [("put", 7), ("settle", 2)])
    def test_the_process_that_replaces_a_dead_one_stores_its_samples_again(
        self, make_target: MakeTarget, processes: Processes, step: str, number: int
    ) -> None:
        """In the lane of the same number, while this process's own target is open: each is there once, and whole."""
        with opened(make_target()) as target:
            processes.run(target, Plan(_NAMES, lane=1, dies_at=step, number=number))
            put_one(lane_of(target, 0), "mine")
            status, told = processes.run(target, Plan(_NAMES, lane=1, redelivered=True, version=1))
            assert (status, told) == (0, dict.fromkeys(_NAMES, True))
        expected = {name: content_of(name, 1) for name in _NAMES}
        check_stored(self.read(make_target()), {**expected, "mine": content_of("mine")})

    @posix
    @pytest.mark.parametrize("largest", [100, 20_000])
    def test_samples_that_the_system_has_no_room_for_are_told_and_leave_nothing(
        self, make_target: MakeTarget, processes: Processes, largest: int
    ) -> None:
        """Where it makes files no longer than that (RLIMIT_FSIZE), so that it takes a part of a sample and no more."""
        names = [f"{number}" for number in range(30)]
        status, told = processes.run(make_target(), Plan(names, largest=largest))
        assert status == 0
        assert set(told) == set(names)
        with opened(make_target()):
            pass
        check_stored(self.read(make_target()), {name: content_of(name) for name in names if told[name] is True})

    def _check_after_death(self, make_target: MakeTarget, told: dict[str, Any], names: list[str] = _NAMES) -> None:
        assert set(told.values()) <= {True}
        with opened(make_target()):
            pass  # the next run clears up, if there is something
        stored = self.read(make_target())
        assert {name for name, data in stored.items() if data != content_of(name)} == set(), "half a sample"
        assert set(told) <= set(stored), "what was told as stored is lost"
        assert set(stored) <= set(names), "something else was left behind"
        rest = [name for name in names if name not in stored][:20]
        with opened(make_target()) as target:
            assert put_all(lane_of(target, 0), {name: content_of(name) for name in rest}) == dict.fromkeys(rest, True)
        check_stored(self.read(make_target()), {name: content_of(name) for name in [*stored, *rest]})
