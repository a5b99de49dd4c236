"""What a crash has left in a directory: temporary files, and the locks of those who wrote them."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator

from lighter_async.interrupts import run_handlers
from lighter_async.locks import LOCK_ENDING, RunLock, owner_of
from lighter_async.locks.flock import HAS_LOCKS
from lighter_async.names import RESERVED_PREFIX
from lighter_async.whole_files import temporary_token
from lighter_async.without_links import remove_below, walk_below

__all__ = ["clear_leftovers"]

_SURELY_OVER = 24 * 3600.0  # seconds, by the file system's clock


def clear_leftovers(root: str, *, but: str) -> OSError | None:
    """Remove the temporary files of writers that ended without closing, or could not remove them.

    Of another machine's, and of this one's before it was started again, a free lock does not tell that they ended, for
    network file systems may keep locks to each machine. Their files are left for a day after they were last written,
    as all are on a system without locks.

    Args:
        root: The directory.
        but: The token of the writer that clears up.

    Returns:
        Why one of them cannot be removed, as in a folder that is immutable; the next one that clears up tries again.
    """
    dead: dict[str, RunLock] = {}
    elsewhere: set[str] = set()
    folder = os.path.join(root, RESERVED_PREFIX)
    mine = _written(os.path.join(folder, but + LOCK_ENDING))
    for entry in os.listdir(folder):
        token = entry.removesuffix(LOCK_ENDING)
        if token in (entry, but):
            continue
        lock = RunLock(os.path.join(folder, entry))
        owner = owner_of(lock.path)
        try:
            if not HAS_LOCKS or (owner is not None and owner.is_elsewhere):
                if mine is None or not _is_old(lock.path, mine):
                    continue
                elsewhere.add(token)
            elif owner is not None and owner.is_alive and owner.process != os.getpid():
                continue  # whatever the lock says: it looks after its helpers' files by itself
            if lock.acquire():
                dead[token] = lock
        except OSError:
            continue  # another one is clearing up after it
    if not dead:
        return None
    removed, failure = 0, None
    cleared: set[str] = set()  # those of whom nothing is left
    try:
        left: set[str] = set()
        for file, token in _temporary_files(root, dead):
            if token not in elsewhere or (mine is not None and _is_old(os.path.join(root, file), mine)):
                try:
                    remove_below(root, file, reserved=True)
                    removed += 1
                except FileNotFoundError:
                    pass  # whose it was has named it, or removed it
                except OSError as error:
                    failure = failure or error
                    left.add(token)
            else:
                dead.pop(token).forget()  # somebody is at work, or was a moment ago
                elsewhere.discard(token)
        cleared = dead.keys() - left
    finally:
        # A lock's file stays as long as anything may be left, for nothing else tells that the rest is nobody's.
        for token, lock in dead.items():
            if token in cleared:
                lock.release()
            else:
                lock.forget()
    if removed:
        import logging  # here, since helpers, which clear nothing up, need none of it

        logging.getLogger(__name__).info(
            "removed %d temporary files that an earlier run left in %s when it ended", removed, root
        )
    return failure


def _written(path: str) -> float | None:
    """When a file was last written, by the file system's clock; None if it is gone."""
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return None


def _is_old(path: str, now: float) -> bool:
    written = _written(path)
    return written is not None and now - written > _SURELY_OVER


def _temporary_files(root: str, tokens: Container[str]) -> Iterator[tuple[str, str]]:
    """The temporary files of some writers, below the directory, with the tokens of these."""
    for folder, files in walk_below(root):
        run_handlers()  # such as Ctrl-C: there may be millions
        for file in files:
            token = temporary_token(file)
            if token is not None and token in tokens:
                yield f"{folder}/{file}" if folder else file, token
