"""Helper processes that have lost their parent: opening a directory waits until they have stored their work."""

from __future__ import annotations

import os
import time

from lighter_async.interrupts import run_handlers
from lighter_async.locks.owner import Owner
from lighter_async.locks.run_lock import LOCK_ENDING, is_held, lock_files, owner_of
from lighter_async.notices import notify

__all__ = ["wait_for_orphaned_helpers"]


def wait_for_orphaned_helpers(folder: str, *, timeout: float) -> None:
    """Wait until nobody holds a lock of a process that has died: its helpers still store what it handed over.

    Args:
        folder: Where the lock files are.
        timeout: Seconds to wait in all.

    Raises:
        TimeoutError: They are still at work.
    """
    deadline = time.monotonic() + timeout
    told = time.monotonic() + 2.0
    while held := _held_by_the_dead(folder):
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError(
                f"helpers of process {held[0].process}, which has died, have been storing what it handed over to "
                f"{os.path.dirname(folder)!r} for {timeout:g} s; look for what holds them up, or end them, at the cost "
                f"of what they have not stored (fuser -v {os.path.join(folder, '*' + LOCK_ENDING)} lists them)"
            )
        if now > told:
            told = deadline
            notify(
                f"waiting for the helpers of process {held[0].process}, which has died, to store what "
                f"it handed over to {os.path.dirname(folder)!r}",
            )
        time.sleep(0.02)
        run_handlers()


def _held_by_the_dead(folder: str) -> list[Owner]:
    owners = [(path, owner_of(path)) for path in lock_files(folder)]
    return [
        owner
        for path, owner in owners
        if owner is not None and (owner.is_dead or owner.is_earlier_program) and is_held(path)
    ]
