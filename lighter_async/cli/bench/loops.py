"""A step of the loop: what the model does, as far as the writers can tell."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, sleep

import torch

from lighter_async.cli.bench.workload import Kind

__all__ = ["Step", "make_step"]

_CALLS_AT_ONCE = 1000
_CALIBRATIONS = 30
_RESULT = 1 << 14


@dataclass(frozen=True)
class Step:
    """A step of the loop.

    Attributes:
        run: Does it.
        calls: How many torch calls it makes; 0 where it only waits.
    """

    run: Callable[[], None]
    calls: int = 0


def make_step(kind: Kind, seconds: float) -> Step:
    """A step that takes `seconds` where nothing else goes on.

    Args:
        kind: ``"device"`` sleeps until the step's end, with the interpreter's lock released, as a loop does that waits
            for an accelerator. ``"launch"`` makes a number of small torch calls, found out once, here; what delays them
            makes the loop longer, as it would a model of many small operations.
        seconds: How long.
    """
    if kind == "device":
        return Step(lambda: _wait(seconds))
    calls = max(1, round(seconds / _seconds_a_call()))
    return Step(lambda: _launch(calls), calls)


def _wait(seconds: float) -> None:
    end = perf_counter() + seconds
    while (left := end - perf_counter()) > 0:
        sleep(left)


def _launch(calls: int) -> None:
    value = torch.zeros(16)
    for _ in range(calls):
        value.add_(1)
    # A step ends with a result of its own. Without one, the C library's tidying up after so many small allocations,
    # milliseconds that the next larger one pays, would be taken for the writer's.
    torch.empty(_RESULT)


def _seconds_a_call() -> float:
    taken = []
    for _ in range(_CALIBRATIONS):
        began = perf_counter()
        _launch(_CALLS_AT_ONCE)
        taken.append((perf_counter() - began) / _CALLS_AT_ONCE)
    return statistics.median(taken)
