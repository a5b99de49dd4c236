"""A step of the loop: what a model does, as far as it matters to the writers."""

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
        run: Runs the step.
        calls: The number of torch calls that it makes; 0 if it only waits.
    """

    run: Callable[[], None]
    calls: int = 0


def make_step(kind: Kind, seconds: float) -> Step:
    """A step that takes `seconds` on a machine that does nothing else.

    Args:
        kind: ``"device"`` sleeps until the step's end, with the interpreter's lock released, like a loop that waits for
            an accelerator. ``"launch"`` makes a number of small torch calls, calibrated once, here. Delays of these
            calls make the loop longer, as in a model of many small operations.
        seconds: How long a step takes.
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
    # A step ends with a larger allocation, in which the C library tidies up after so many small ones. Otherwise those
    # milliseconds would be counted as the writer's.
    torch.empty(_RESULT)


def _seconds_a_call() -> float:
    taken = []
    for _ in range(_CALIBRATIONS):
        began = perf_counter()
        _launch(_CALLS_AT_ONCE)
        taken.append((perf_counter() - began) / _CALLS_AT_ONCE)
    return statistics.median(taken)
