"""A target that does wrong by a schedule that follows from a seed and the sample's name."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lighter_async import LocalTarget
from lighter_async.testing import Fault, FaultyTarget

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


class Schedule:
    """What happens at each attempt of a sample.

    Args:
        seed: Decides it, with the sample's name.
        helpers: Whether it happens in helper processes, which may be killed.
    """

    def __init__(self, seed: int, helpers: bool) -> None:
        self._seed = seed
        self._helpers = helpers

    def __call__(self, name: str, attempt: int) -> Fault | None:
        _here.short = None  # of this thread's sample before
        plan, _ = plan_of(self._seed, name, self._helpers)
        choose = random.Random(f"{self._seed} {name} {attempt}")
        if plan == "slow":
            return Fault(error=partial(time.sleep, choose.uniform(0, 0.1)))
        if plan == "stays" or attempt <= {"passes": 1, "passes late": 2}.get(plan, 0):
            return Fault(error=partial(_error, choose.choice(_TRANSIENT)))
        if plan == "final":
            return Fault(error=partial(_error, random.Random(name).choice(_FINAL)))
        if plan == "odd":
            return Fault(error=partial(ZeroDivisionError, "of the target's own"))
        if plan.startswith("hangs") and (attempt == 1 or plan == "hangs again"):
            return Fault(error=partial(time.sleep, _STALL))
        if plan.startswith("dies") and (attempt == 1 or plan == "dies again"):
            _here.short = lambda: os.kill(os.getpid(), signal.SIGKILL)
        elif plan == "short":
            _here.short = lambda: None
        elif plan == "short, then passes" and attempt == 1:
            _here.short = lambda: _raise(errno.EIO)
        elif plan == "short, then final":
            _here.short = lambda: _raise(errno.ENOSPC)
        return None


class Unreliable(FaultyTarget):
    """A directory that fails, stalls, writes short, and has its process killed.

    Args:
        directory: Where it stores.
        marks: A folder where attempts are counted, over all processes.
        seed: Of the schedule.
        helpers: Whether it works in helper processes, which may be killed.
        durability: The directory's.
    """

    def __init__(self, directory: Path, marks: Path, seed: int, *, helpers: bool, durability: Any = "rename") -> None:
        super().__init__(LocalTarget(directory, durability=durability), Schedule(seed, helpers), counts=marks)
        self._seed = seed
        self._helpers = helpers

    def open(self) -> None:
        os.writev = _short_writev
        super().open()

    def close(self) -> None:
        super().close()
        os.writev = _writev

    def count_faults(self) -> int:
        """How often something was done wrong, over all processes."""
        found = 0
        for path in self.attempts.folder.iterdir():
            plan, _ = plan_of(self._seed, unquote(path.name), self._helpers)
            attempts = path.stat().st_size
            if plan != "fine":
                most = {"passes": 1, "passes late": 2, "short, then passes": 1, "dies": 1, "hangs": 1}
                found += min(attempts, most.get(plan, attempts))
        return found


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _raise(number: int) -> None:
    raise _error(number)


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
