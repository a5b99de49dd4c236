"""A worker's way through a unit: each sample is encoded and put, or handed to a function, or failed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from lighter_async.errors import WriteTimeoutError
from lighter_async.manifest import Stored
from lighter_async.targets import Lane, PathTarget
from lighter_async.types import Result, Unit
from lighter_async.workers.encoding import encode_sample, files_of, ready
from lighter_async.workers.rows import write_rows
from lighter_async.workers.storing import Abandoned, Work
from lighter_async.workers.worker_job import Job
from lighter_async.writers import PathFunction

__all__ = ["await_unit", "fail_unit", "write_unit"]


def write_unit(job: Job, unit: Unit, lane: Lane, on_progress: Callable[[int | None], None]) -> Result:
    """Write samples one after the other, with encoders or a plain path function, and record them.

    No exception of a writer leaves it: each becomes the failure of its sample, and the next sample is written.

    Args:
        job: What is done with them.
        unit: The samples.
        lane: The worker's own.
        on_progress: Called with the index of a sample when an attempt to write it begins, and with None before a
            wait.

    Raises:
        Abandoned: By `on_progress`, in a thread that was abandoned after a timeout.
    """
    work = Work(job, unit, lane, on_progress=on_progress)
    write = _encode_and_put if job.outputs else _call
    try:
        if lane.takes_rows and (result := write_rows(work, lane)) is not None:
            return result
        for index in range(unit.start, unit.stop):
            work.begin(index)
            try:
                if not (unit.redelivered and work.is_recorded(index)):
                    write(work, index)
            except BaseException as error:
                work.fail(index, error)
        return work.settle()
    except Abandoned:
        work.leave()
        raise


async def await_unit(job: Job, unit: Unit) -> Result:
    """Write the samples one after the other with an async path function."""
    work = Work(job, unit)
    for index in range(unit.start, unit.stop):
        work.begin(index)
        try:
            await _await(work, index)
        except BaseException as error:
            work.fail(index, error)
    return work.settle()


def fail_unit(job: Job, unit: Unit, error: BaseException, attempts: int) -> Result:
    """Fail every sample of a unit."""
    work = Work(job, unit, attempts=attempts)
    for index in range(unit.start, unit.stop):
        work.fail(index, error)
    return work.result


def _encode_and_put(work: Work, index: int) -> None:
    unit, result, job = work.unit, work.result, work.job
    files = files_of(job.outputs, unit.batch.names[index])
    if not unit.redelivered and _are_kept(job, files):
        result.skipped += 1
        return
    began = perf_counter()
    try:
        item = encode_sample(job.outputs, files, unit, index, takes_arrays=job.takes_arrays)
    finally:
        encoded = perf_counter()
        result.encode_seconds += encoded - began
    try:
        work.put(index, item)
    finally:
        result.store_seconds += perf_counter() - encoded


def _are_kept(job: Job, files: Sequence[str]) -> bool:
    """Whether a sample of an earlier run stays as it is, so that it need not be encoded."""
    keeps = job.session.target.keeps
    for file in files:  # noqa: SIM110 - it runs for every sample, and a generator takes longer
        if not keeps(file):
            return False
    return True


def _call(work: Work, index: int) -> None:
    began = perf_counter()
    try:
        work.attempt(partial(_call_once, work.job, work.unit, index))
    finally:
        work.result.store_seconds += perf_counter() - began
    work.stored.append(Stored(index, None, None, None))


def _call_once(job: Job, unit: Unit, index: int) -> None:
    function, path, value = _call_of(job, unit, index)
    returned = function(path, value)
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise TypeError(
            f"writer {job.writer.name!r} returned an awaitable, but it is no async function, so nobody awaits it; "
            "define it with 'async def'"
        )


async def _await(work: Work, index: int) -> None:
    began = perf_counter()

    try:
        await work.attempt_async(partial(_await_once, work.job, work.unit, index))
    finally:
        work.result.store_seconds += perf_counter() - began
    work.stored.append(Stored(index, None, None, None))


async def _await_once(job: Job, unit: Unit, index: int) -> None:
    function, path, value = _call_of(job, unit, index)
    limit = job.patience.write_timeout
    if limit is None:
        await function(path, value)
        return
    import anyio  # which helpers do without

    try:
        with anyio.fail_after(limit) as scope:
            await function(path, value)
    except TimeoutError as error:
        if not scope.cancelled_caught:
            raise
        raise WriteTimeoutError(f"writing took longer than write_timeout={limit:g} s") from error


def _call_of(job: Job, unit: Unit, index: int) -> tuple[Callable[[Path, Any], Any], Path, Any]:
    assert isinstance(job.writer, PathFunction)
    target = job.session.target
    assert isinstance(target, PathTarget)
    return job.writer.function, target.path(unit.batch.names[index]), ready(unit).own_value(index)
