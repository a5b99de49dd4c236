"""What a crash has left in a directory: temporary files, and the locks of those who wrote them."""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Iterator

from lighter_async.files import is_temporary, remove
from lighter_async.interrupts import run_handlers
from lighter_async.locks import LOCK_ENDING, RunLock
from lighter_async.names import RESERVED_PREFIX

__all__ = ["clear_leftovers"]

_log = logging.getLogger(__name__)


def clear_leftovers(root: str, *, but: str) -> None:
    """Remove the temporary files of writers that ended without closing.

    Args:
        root: The directory.
        but: The token of the writer that clears up.
    """
    dead: dict[str, RunLock] = {}
    folder = os.path.join(root, RESERVED_PREFIX)
    for entry in os.listdir(folder):
        token = entry.removesuffix(LOCK_ENDING)
        if token in (entry, but):
            continue
        lock = RunLock(os.path.join(folder, entry))
        try:
            if lock.acquire():
                dead[token] = lock
        except OSError:
            continue  # another one is clearing up after it
    if not dead:
        return
    try:
        removed = sum(remove(path) for path in _temporary_files(root, dead))
    finally:
        for lock in dead.values():
            lock.release()
    if removed:
        _log.info("removed %d temporary files that an earlier run left in %s when it ended", removed, root)


def _temporary_files(root: str, tokens: Container[str]) -> Iterator[str]:
    for folder, _, files in os.walk(root):
        run_handlers()  # such as Ctrl-C: there may be millions
        for file in files:
            if is_temporary(file) in tokens:
                yield os.path.join(folder, file)
