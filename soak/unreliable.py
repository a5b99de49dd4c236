"""A target that does wrong by a schedule that follows from a seed and the sample's name."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lighter_async import LocalTarget

__all__ = ["Unreliable", "plan_of"]

_TRANSIENT = (errno.EIO, errno.ESTALE, errno.ECONNRESET, errno.ETIMEDOUT, errno.EBUSY)
_FINAL = (errno.EACCES, errno.EROFS, errno.EDQUOT, errno.ENAMETOOLONG)
_STALL = 3600.0  # seconds, which `write_timeout` ends

_PLANS = {
    "fine": 60,
    "passes": 8,  # an error that may pass, once
    "passes late": 3,  # twice
    "stays": 3,  # an error that may pass, at every attempt
    "final": 4,  # one that does not pass
    "odd": 2,  # an exception that is no OSError
    "slow": 8,  # a stall that passes
    "short": 8,  # the system takes half of what it is given, again and again
    "short, then passes": 4,  # half, and then an error, once
    "short, then final": 2,  # half, and then an error, at every attempt
}
_HELPER_PLANS = {
    "dies": 3,  # the process is killed in the middle of a file, once
    "dies again": 1,  # at every attempt
    "hangs": 2,  # until `write_timeout` ends the process, once
    "hangs again": 1,  # at every attempt
}
_REPORTED = ("stays", "final", "odd", "short, then final", "dies again", "hangs again")


def plan_of(seed: int, name: str, helpers: bool) -> tuple[str, bool]:
    """What happens to a sample, and whether it is to be reported instead of stored."""
    plans = _PLANS | _HELPER_PLANS if helpers else _PLANS
    (plan,) = random.Random(f"{seed} {name}").choices(list(plans), list(plans.values()))
    return plan, plan in _REPORTED


class Unreliable:
    """A `LocalTarget` that fails, stalls, writes short, and has its process killed.

    Args:
        directory: Where it stores.
        marks: A folder where attempts are counted, over all processes.
        seed: Of the schedule.
        helpers: Whether it works in helper processes, which may be killed.
        durability: The inner target's.
    """

    def __init__(self, directory: Path, marks: Path, seed: int, *, helpers: bool, durability: Any = "rename") -> None:
        self._target = LocalTarget(directory, durability=durability)
        self._marks = marks
        self._seed = seed
        self._helpers = helpers

    @property
    def location(self) -> str:
        return self._target.location

    def open(self) -> None:
        self._marks.mkdir(parents=True, exist_ok=True)
        os.writev = _short_writev
        self._target.open()

    def check(self, names: Sequence[str]) -> None:
        self._target.check(names)

    def keeps(self, name: str) -> bool:
        return self._target.keeps(name)

    def put(self, name: str, parts: Sequence[memoryview]) -> bool:
        plan, _ = plan_of(self._seed, name, self._helpers)
        attempt = self._count(name)
        choose = random.Random(f"{self._seed} {name} {attempt}")
        if plan == "slow":
            time.sleep(choose.uniform(0, 0.1))
        elif plan == "stays" or attempt <= {"passes": 1, "passes late": 2}.get(plan, 0):
            self._raise(choose.choice(_TRANSIENT))
        elif plan == "final":
            self._raise(random.Random(name).choice(_FINAL))
        elif plan == "odd":
            raise ZeroDivisionError("of the target's own")
        elif plan.startswith("hangs") and (attempt == 1 or plan == "hangs again"):
            time.sleep(_STALL)
        elif plan.startswith("dies") and (attempt == 1 or plan == "dies again"):
            _here.short = lambda: os.kill(os.getpid(), signal.SIGKILL)
        elif plan == "short":
            _here.short = lambda: None
        elif plan == "short, then passes" and attempt == 1:
            _here.short = lambda: self._raise(errno.EIO)
        elif plan == "short, then final":
            _here.short = lambda: self._raise(errno.ENOSPC)
        try:
            return self._target.put(name, parts)
        finally:
            _here.short = None

    def close(self) -> None:
        self._target.close()
        os.writev = _writev

    def faults(self) -> int:
        """How often something was done wrong, over all processes."""
        found = 0
        for path in self._marks.iterdir():
            plan, _ = plan_of(self._seed, path.name.replace("!", "/"), self._helpers)
            attempts = path.stat().st_size
            if plan != "fine":
                most = {"passes": 1, "passes late": 2, "short, then passes": 1, "dies": 1, "hangs": 1}
                found += min(attempts, most.get(plan, attempts))
        return found

    def _count(self, name: str) -> int:
        """Which attempt this is, counted from one."""
        descriptor = os.open(self._marks / name.replace("/", "!"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            _write(descriptor, b".")
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def _raise(self, number: int) -> None:
        raise OSError(number, os.strerror(number))


# Short writes: `os.writev` takes half of what it is given, where a sample's plan says so.
_here = threading.local()
_writev, _write = os.writev, os.write


def _short_writev(descriptor: int, parts: Any) -> int:
    then = getattr(_here, "short", None)
    first = bytes(parts[0]) if then is not None and parts else b""
    if then is None or not first:
        return _writev(descriptor, parts)
    if getattr(_here, "begun", None) == descriptor:
        # It has taken some of it before.
        _here.begun = None
        then()
    _here.begun = descriptor
    return _write(descriptor, first[: -(-len(first) // 2)])
