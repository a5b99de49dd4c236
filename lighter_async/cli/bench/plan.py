"""Plan how long each run takes, from the cost of writing a batch here."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from lighter_async.cli.bench.backends import running_writer
from lighter_async.cli.bench.folders import stored_bytes
from lighter_async.cli.bench.grid import Setting, Turn
from lighter_async.cli.bench.options import BadOption, BenchOptions
from lighter_async.cli.bench.runs import WARM_UP_SECONDS, warm_up_batches
from lighter_async.cli.bench.workload import Workload
from lighter_async.errors import WriteError
from lighter_async.limits import usable_cores

__all__ = ["Cost", "Plan", "check_space", "make_plan", "try_out"]

_SECONDS, _QUICK_SECONDS = 3.0, 1.0  # a run
_QUICK_TOTAL, _QUICK_MOST = 35.0, 45.0  # of all runs, so that a minute is enough with start and end
_LEAST_STEPS = 2
_START_SECONDS = 0.3  # of the workers, and to remove the files
_BLOCK = 4096  # bytes that the smallest file takes
_SHARE = 0.9  # of the free space, which a run may take


@dataclass(frozen=True)
class Cost:
    """What writing a batch costs one worker thread.

    Attributes:
        seconds: How long it takes.
        stored_bytes: The bytes that it takes on the disk.
    """

    seconds: float
    stored_bytes: int


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Attributes:
        steps: Steps of every run.
        seconds: How long all runs are expected to take.
        stored_bytes: The bytes of the largest run on the disk.
    """

    steps: int
    seconds: float
    stored_bytes: int


def try_out(workload: Workload, writer: str, batches: Sequence[Any], folder: Path) -> Cost:
    """Write two batches, and take the time of the second.

    Raises:
        BadOption: The writer cannot write such samples.
        OSError: The disk cannot be written to.
    """
    folder = folder / "first"
    try:
        with running_writer(writer, folder, backend="thread", max_workers=1) as background:
            for number in range(2):
                began = perf_counter()
                background.submit_batch(workload.names(number), batches[number % len(batches)])
                background.flush()
                seconds = perf_counter() - began
    except WriteError as error:
        if isinstance(error.cause, OSError):
            raise error.cause from error
        raise BadOption(
            f"--format, --shape, --dtype: {workload.format!r} cannot write a sample of shape {workload.shape} and "
            f"dtype {workload.dtype}: {error.cause}"
        ) from error
    cost = Cost(seconds, stored_bytes(folder, block=_BLOCK) // 2)
    shutil.rmtree(folder)
    return cost


def make_plan(options: BenchOptions, cost: Cost, settings: Sequence[Setting], order: Sequence[Turn]) -> Plan:
    """Choose the number of steps.

    Args:
        options: What the command line says.
        cost: The cost of a batch.
        settings: The grid.
        order: All runs.

    Raises:
        BadOption: With the other options ``--quick`` would take too long.
    """
    step = options.step_seconds

    def a_step(turn: Turn) -> float:
        if isinstance(turn, Setting):
            return max(step, cost.seconds / min(turn.max_workers, usable_cores()))
        return step if turn is None else step + cost.seconds

    fixed = sum(
        WARM_UP_SECONDS + _START_SECONDS + warm_up_batches(turn.max_workers) * cost.seconds
        for turn in order
        if isinstance(turn, Setting)
    )
    steps = options.steps
    if steps is None:
        seconds = options.seconds or (_QUICK_SECONDS if options.quick else _SECONDS)
        steps = round(seconds / max(step, cost.seconds))
        if options.quick and options.seconds is None:
            steps = min(steps, int((_QUICK_TOTAL - fixed) / sum(map(a_step, order))))
        steps = max(_LEAST_STEPS, steps)
    seconds = fixed + steps * sum(map(a_step, order))
    if options.quick and seconds > _QUICK_MOST:
        raise BadOption(
            f"--quick: {len(order)} runs of {steps} steps would take {seconds:.0f} s; give fewer --max-workers, "
            "--queue-sizes or --repeats, smaller batches or a shorter --step-ms, or leave --quick out"
        )
    most = max(steps + warm_up_batches(setting.max_workers) for setting in settings)
    return Plan(steps, seconds, most * cost.stored_bytes)


def check_space(plan: Plan, directory: Path) -> None:
    """Refuse to fill the disk.

    Raises:
        BadOption: A run's files would not fit.
    """
    free = shutil.disk_usage(directory).free
    if plan.stored_bytes > _SHARE * free:
        raise BadOption(
            f"--directory: a run's files take {plan.stored_bytes / 1e9:.2f} GB, and {str(directory)!r} has "
            f"{free / 1e9:.2f} GB free, a tenth of which is left alone; name a folder on another disk, or give fewer "
            "--steps or --seconds"
        )
