"""Calls that block, or must not be cut off, awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from anyio import CapacityLimiter, to_thread

from lighter_async.errors import WriteError, attach
from lighter_async.notices import at_callers_line

__all__ = ["in_thread", "to_the_end"]

_T = TypeVar("_T")


async def in_thread(call: Callable[[], _T]) -> _T:
    """Make a call in a thread, and await it whatever cancels the caller."""
    with at_callers_line():
        # With a limit of its own: all of the program's threads may be taken by calls that wait for this one.
        return await to_the_end(lambda: to_thread.run_sync(call, limiter=CapacityLimiter(1)))


async def to_the_end(call: Callable[[], Awaitable[_T]]) -> _T:
    """Await a call whatever cancels the caller.

    In a task of its own, since a shield keeps a cancelled scope of anyio's or trio's away, but not asyncio's own
    `Task.cancel`, which `asyncio.timeout` uses. That one is raised once the call has ended.
    """
    results: list[_T] = []
    errors: list[Exception] = []

    async def run() -> None:
        with anyio.CancelScope(shield=True):
            try:
                results.append(await call())
            except Exception as error:
                errors.append(error)

    try:
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
    except anyio.get_cancelled_exc_class() as cancelled:
        if errors and isinstance(errors[0], WriteError):  # which is raised once, so it must not go
            attach(errors[0], cancelled)
        raise
    if errors:
        raise errors[0]
    return results[0]
