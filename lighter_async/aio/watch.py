"""What wakes the tasks that wait for a change of what is pending."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import anyio

from lighter_async.interrupts import uninterrupted
from lighter_async.ledger import Bell
from lighter_async.service import Steps

__all__ = ["Watch"]

_SECONDS_TO_LOOK = 0.1


class Watch:
    """What the tasks of one event loop share that wait for changes of what is pending.

    There is one bell, and one descriptor for news of helpers, however many tasks wait. One of them watches these, and
    wakes the others; when it leaves, cancelled or done, another one goes on.

    Attributes:
        users: How many tasks share it.
    """

    def __init__(self, steps: Steps) -> None:
        self.users = 0
        self._steps = steps
        self._changed = anyio.Event()
        self._is_watched = False
        with ExitStack() as stack:
            self._bell, self._news = stack.enter_context(steps.watch())
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Stop watching."""
        self._stack.close()

    async def change(self) -> None:
        """Return at the next change, or somewhat earlier."""
        if self._is_watched:
            await self._changed.wait()
            return
        self._is_watched = True
        try:
            if self._news is None:
                await _rung(self._bell)
            else:
                with anyio.move_on_after(_SECONDS_TO_LOOK):  # a device's copy that has arrived tells nobody
                    await _first(partial(_rung, self._bell), partial(anyio.wait_readable, self._news))
            self._steps.collect()
        finally:
            with uninterrupted():
                self._is_watched = False
                changed, self._changed = self._changed, anyio.Event()
                changed.set()


async def _rung(bell: Bell) -> None:
    await anyio.wait_readable(bell.socket)
    bell.silence()


async def _first(*waits: Callable[[], Awaitable[Any]]) -> None:
    """Await several things until the first of them is there."""

    async def run(wait: Callable[[], Awaitable[Any]]) -> None:
        await wait()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for wait in waits:
            tasks.start_soon(run, wait)
