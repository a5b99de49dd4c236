"""Descriptors that a forked child closes, and the lock that keeps a fork from finding them half changed."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["Descriptors", "no_fork"]

no_fork = threading.RLock()
"""While a thread holds this lock, no other thread forks. Hold it for a few lines that do not wait."""


class Descriptors:
    """File descriptors of this package: a forked child closes all of them, and no others.

    A number is in the set exactly as long as its descriptor is open, since a fork waits while that changes. Otherwise
    the child could close somebody else's descriptor of that number, or keep ours.
    """

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        with no_fork:
            _all.add(self)

    def open(self, make: Callable[..., int], *arguments: Any) -> int:
        """Open a descriptor with `make`."""
        with no_fork:
            number = make(*arguments)
            self._numbers.add(number)
            return number

    def close(self, *numbers: int) -> None:
        """Close some of them. Negative numbers, and those that are closed already, are ignored."""
        with no_fork:
            for number in numbers:
                if number in self._numbers:
                    self._numbers.discard(number)
                    os.close(number)

    def close_all(self) -> None:
        """Close those that are still open."""
        with no_fork:
            self.close(*self._numbers.copy())


_all: weakref.WeakSet[Descriptors] = weakref.WeakSet()


def _forked() -> None:
    for descriptors in list(_all):
        descriptors.close_all()
    _release()


def _release() -> None:
    try:
        no_fork.release()
    except RuntimeError:
        pass  # a signal's handler raised before the fork had taken it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=no_fork.acquire, after_in_parent=_release, after_in_child=_forked)
