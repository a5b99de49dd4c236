"""Descriptors that a forked child lets go of: a data loader's worker may live as long as the job, and would keep them.

A child knows them by their numbers alone, and another thread may be closing one at the moment of the fork, or may have
closed it, so that the number is somebody else's by now. So they are opened and closed under a lock that a fork takes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["close", "unforked"]

_lock = threading.RLock()
_owned: dict[int, Callable[[int], None]] = {}  # descriptors, and how they are closed


@contextmanager
def unforked() -> Iterator[Callable[..., int]]:
    """While it is open nobody forks; gives a function that enters a descriptor which was opened meanwhile."""
    with _lock:
        yield _enter


def _enter(descriptor: int, close: Callable[[int], None] = os.close) -> int:
    _owned[descriptor] = close
    return descriptor


def close(descriptor: int) -> None:
    """Close a descriptor that was entered."""
    with _lock:
        _owned.pop(descriptor, os.close)(descriptor)


def _before() -> None:
    _lock.acquire()


def _in_parent() -> None:
    _lock.release()


def _in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for descriptor, let_go in _owned.items():
        try:
            let_go(descriptor)
        except OSError:
            pass
    _owned.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
